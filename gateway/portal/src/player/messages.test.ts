import { expect, test } from 'vitest'
import { codecName, hasSound, parseMediaMessage, webSocketAddress } from './messages'

test('reads the two messages of the protocol', () => {
  expect(parseMediaMessage('{"type":"media","mime":"video/mp4; codecs=\\"avc1.64001F\\""}')).toEqual({
    type: 'media',
    mime: 'video/mp4; codecs="avc1.64001F"',
  })
  expect(parseMediaMessage('{"type":"end","reason":"revoked"}')).toEqual({
    type: 'end',
    reason: 'revoked',
    detail: '',
    by: '',
  })
  expect(parseMediaMessage('{"type":"end","reason":"revoked","detail":"d","by":"交通运输局"}')).toEqual({
    type: 'end',
    reason: 'revoked',
    detail: 'd',
    by: '交通运输局',
  })
})

test.each(['', 'null', '3', '[]', '{"type":"media"}', '{"type":"end","reason":4}', '{"type":"later"}', '{'])(
  'ignores %j',
  (text) => {
    expect(parseMediaMessage(text)).toBeNull()
  },
)

test("finds the WebSocket at the page's own origin", () => {
  expect(webSocketAddress('/media/a/ws?ticket=t', 'https://custos.example:8/')).toBe(
    'wss://custos.example:8/media/a/ws?ticket=t',
  )
  expect(webSocketAddress('/media/a/ws', 'http://127.0.0.1:8080/x')).toBe('ws://127.0.0.1:8080/media/a/ws')
  expect(webSocketAddress('ws://127.0.0.1:8080/media/a/ws?ticket=t', 'https://custos.example/')).toBe(
    'wss://custos.example/media/a/ws?ticket=t',
  )
})

test('hears whether there is sound', () => {
  expect(hasSound('video/mp4; codecs="avc1.64001F,mp4a.40.2"')).toBe(true)
  expect(hasSound('video/mp4; codecs="avc1.64001F, mp4a.40.2"')).toBe(true)
  expect(hasSound('video/mp4; codecs="avc1.64001F"')).toBe(false)
})

test('names the codec', () => {
  expect(codecName('video/mp4; codecs="avc1.64001F"')).toBe('H.264')
  expect(codecName('video/mp4; codecs="hvc1.1.6.L93.B0"')).toBe('H.265')
  expect(codecName('video/mp4; codecs="av01.0.04M.08"')).toBe('av01.0.04M.08')
})
