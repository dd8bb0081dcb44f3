/** The catalogue's closed lists, in the order in which they are offered. */

import type { CameraFilter, Network, SharingMode } from './api/types'

export const NETWORKS: Network[] = ['government-extranet', 'video-private-network', 'internet-private-line']
export const POINT_CLASSES = [1, 2, 3]
export const SHARING_MODES: SharingMode[] = ['unconditional', 'conditional', 'not-shared']

export function noFilter(q = ''): CameraFilter {
  return { q, department: '', group: '', tag: '', network: '', point_class: '', sharing_mode: '' }
}

/** How many of the filters narrow the list; the words of the search are not one. */
export function narrowedBy({ q: _, ...filters }: CameraFilter): number {
  return Object.values(filters).filter((value) => value !== '').length
}

/** 31.230416° N, 121.473701° E */
export function placeOnEarth(latitude: number, longitude: number): string {
  const part = (degrees: number, positive: string, negative: string): string =>
    `${Math.abs(degrees).toFixed(6)}° ${degrees < 0 ? negative : positive}`
  return `${part(latitude, 'N', 'S')}, ${part(longitude, 'E', 'W')}`
}
