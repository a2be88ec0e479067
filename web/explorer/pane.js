/** One image with the heat over it, the inspected box, and the painted region. */
import {el} from './dom.js'
import {drawHeat} from './heat.js'

const HEAT_SIDE = 320
const PAINT_COLOUR = [70, 214, 190, 150]

/** @typedef {ReturnType<typeof createPane>} Pane */

/**
 * @param {string} name  The image's name for screen readers.
 * @param {string} caption  Shown below the image; "" for none.
 */
export function createPane(name, caption) {
  const image = el('img', {class: 'rv-image', alt: name, draggable: false})
  const heat = el('canvas', {class: 'rv-heat'})
  const paint = el('canvas', {class: 'rv-paint'})
  const box = el('div', {class: 'rv-box', hidden: true})
  const layers = el('div', {class: 'rv-layers'}, image, heat, paint, box)
  const element = el('div', {class: 'rv-pane'}, layers, caption && el('div', {class: 'rv-caption'}, caption))
  let aspect = 1

  return {
    element,
    layers,
    /** The image's aspect ratio: width / height. */
    get aspect() {
      return aspect
    },
    /**
     * @param {string} url  Address of the image; "" if the run has no image.
     * @param {number} gridAspect  Aspect ratio of the grid, used if the run has no image.
     * @param {() => void} onSized
     */
    show(url, gridAspect, onSized) {
      const setAspect = (/** @type {number} */ value) => {
        aspect = value
        onSized()
      }
      image.hidden = !url
      if (!url) {
        setAspect(gridAspect)
        return
      }
      if (image.getAttribute('src') === url) return
      image.onload = () => setAspect(image.naturalWidth / image.naturalHeight)
      image.onerror = () => {
        image.hidden = true
        setAspect(gridAspect)
      }
      image.src = url
    },
    /**
     * Set the image's size so that it fits into a width and height in pixels.
     * @param {number} width
     * @param {number} height
     */
    fit(width, height) {
      const fitted = Math.max(1, Math.min(width, height * aspect))
      Object.assign(layers.style, {width: `${fitted}px`, height: `${fitted / aspect}px`})
    },
    /**
     * @param {import('./heat.js').HeatMap | null} map
     * @param {Uint32Array} palette
     * @param {number} opacity
     */
    drawHeat(map, palette, opacity) {
      heat.hidden = !map || opacity === 0
      image.style.filter = map ? `grayscale(${0.85 * opacity}) brightness(${1 - 0.52 * opacity})` : ''
      if (map) drawHeat(heat, map, palette, HEAT_SIDE)
    },
    /** @param {import('./region.js').Box | null} region */
    drawBox(region) {
      box.hidden = !region
      if (!region) return
      const {left, top, right, bottom} = region
      Object.assign(box.style, {
        left: `${100 * left}%`,
        top: `${100 * top}%`,
        width: `${100 * (right - left)}%`,
        height: `${100 * (bottom - top)}%`,
      })
    },
    /** @param {import('./region.js').Painted | null} painted */
    drawPaint(painted) {
      paint.hidden = !painted
      if (!painted) return
      Object.assign(paint, {width: painted.width, height: painted.height})
      const context = paint.getContext('2d')
      if (!context) return
      const pixels = context.createImageData(painted.width, painted.height)
      painted.cells.forEach((cell, number) => {
        if (cell) pixels.data.set(PAINT_COLOUR, 4 * number)
      })
      context.putImageData(pixels, 0, 0)
    },
    /**
     * Return the position of a pointer on the image.
     * @param {PointerEvent | WheelEvent} event
     * @returns {import('./region.js').Point}
     */
    pointOf(event) {
      const area = layers.getBoundingClientRect()
      return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height]
    },
  }
}
