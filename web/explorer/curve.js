/** Draws a small curve over the steps, in the accent colour. */

/**
 * @param {HTMLCanvasElement} canvas  Its resolution is set to match its size on the page.
 * @param {Float32Array} values
 * @param {number} step  The step to mark with a dot.
 */
export function drawCurve(canvas, values, step) {
  const ratio = window.devicePixelRatio || 1
  const width = Math.round((canvas.clientWidth || 200) * ratio)
  const height = Math.round((canvas.clientHeight || 40) * ratio)
  Object.assign(canvas, {width, height})
  const context = canvas.getContext('2d')
  if (!context || !values.length) return
  const highest = Math.max(...values, 1e-9)
  const lowest = Math.min(...values, 0)
  const edge = 8 * ratio
  const x = (/** @type {number} */ index) =>
    edge + (index / Math.max(1, values.length - 1)) * (width - 2 * edge)
  const y = (/** @type {number} */ value) =>
    height - 3 * ratio - ((value - lowest) / (highest - lowest)) * (height - 8 * ratio)
  context.strokeStyle = context.fillStyle = '#f0924a'
  context.lineWidth = 1.75 * ratio
  context.lineJoin = 'round'
  context.beginPath()
  values.forEach((value, index) => context.lineTo(x(index), y(value)))
  context.stroke()
  context.globalAlpha = 0.16
  context.lineTo(x(values.length - 1), height)
  context.lineTo(x(0), height)
  context.fill()
  context.globalAlpha = 1
  const current = values[step]
  if (current === undefined) return
  context.beginPath()
  context.arc(x(step), y(current), 3.5 * ratio, 0, 2 * Math.PI)
  context.fill()
}
