/** Trees of departments and of groups, from the flat lists that the gateway answers. */

export interface TreeEntry {
  id: string
  name: string
  parent_id: string | null
}

export interface TreeNode {
  value: string
  label: string
  children: TreeNode[]
}

/** The entries as a tree in their own order; whose parent is not among them stands at the top. */
export function treeOf(entries: readonly TreeEntry[]): TreeNode[] {
  const nodes = new Map<string, TreeNode>()
  for (const { id, name } of entries) nodes.set(id, { value: id, label: name, children: [] })
  const top: TreeNode[] = []
  for (const { id, parent_id } of entries) {
    const siblings = parent_id === null ? top : (nodes.get(parent_id)?.children ?? top)
    siblings.push(nodes.get(id)!)
  }
  return top
}
