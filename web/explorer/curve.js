/** A small curve over the steps, in the text's colour. */

/**
 * @param {HTMLCanvasElement} canvas  Its size on the page decides its pixels.
 * @param {Float32Array} values
 * @param {number} step  Marked by a dot.
 */
export function drawCurve(canvas, values, step) {
  const ratio = window.devicePixelRatio || 1
  const width = Math.round((canvas.clientWidth || 200) * ratio),
    height = Math.round((canvas.clientHeight || 40) * ratio)
  Object.assign(canvas, {width, height})
  const context = canvas.getContext('2d')
  if (!context || !values.length) return
  const top = Math.max(...values, 1e-9),
    low = Math.min(...values, 0)
  const edge = 8 * ratio
  const x = (/** @type {number} */ at) => edge + (at / Math.max(1, values.length - 1)) * (width - 2 * edge)
  const y = (/** @type {number} */ value) =>
    height - 3 * ratio - ((value - low) / (top - low)) * (height - 8 * ratio)
  context.strokeStyle = context.fillStyle = '#f0924a'
  context.lineWidth = 1.75 * ratio
  context.lineJoin = 'round'
  context.beginPath()
  values.forEach((value, at) => context.lineTo(x(at), y(value)))
  context.stroke()
  context.globalAlpha = 0.16
  context.lineTo(x(values.length - 1), height)
  context.lineTo(x(0), height)
  context.fill()
  context.globalAlpha = 1
  if (step < values.length) {
    context.beginPath()
    context.arc(x(step), y(values[step]), 3.5 * ratio, 0, 2 * Math.PI)
    context.fill()
  }
}
