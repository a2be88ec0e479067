/** One picture with heat over it, the box that is looked at, and what is painted. */
import {el} from './dom.js'
import {drawHeat} from './heat.js'

const HEAT_SIDE = 320

/** @typedef {ReturnType<typeof createPane>} Pane */

/**
 * @param {string} name  What a screen reader calls the picture.
 * @param {string} caption  Shown below the picture; "" for none.
 */
export function createPane(name, caption) {
  const image = el('img', {class: 'rv-image', alt: name, draggable: false})
  const heat = el('canvas', {class: 'rv-heat'}),
    paint = el('canvas', {class: 'rv-paint'})
  const box = el('div', {class: 'rv-box', hidden: true})
  const layers = el('div', {class: 'rv-layers'}, image, heat, paint, box)
  const element = el('div', {class: 'rv-pane'}, layers, caption && el('div', {class: 'rv-caption'}, caption))
  let aspect = 1

  return {
    element,
    layers,
    /** Width by height of the picture. */
    get aspect() {
      return aspect
    },
    /**
     * @param {string} url  Empty where the run has no picture.
     * @param {number} shape  Width by height, for a run without a picture.
     * @param {() => void} ready
     */
    show(url, shape, ready) {
      image.hidden = !url
      const sized = (/** @type {number} */ value) => {
        aspect = value
        ready()
      }
      if (!url) return sized(shape)
      if (image.getAttribute('src') === url) return
      image.onload = () => sized(image.naturalWidth / image.naturalHeight)
      image.onerror = () => {
        image.hidden = true
        sized(shape)
      }
      image.src = url
    },
    /**
     * Fit the picture into a room of so many pixels.
     * @param {number} width
     * @param {number} height
     */
    fit(width, height) {
      const w = Math.max(1, Math.min(width, height * aspect))
      Object.assign(layers.style, {width: `${w}px`, height: `${w / aspect}px`})
    },
    /**
     * @param {import('./subject.js').Maps | null} maps
     * @param {number} step
     * @param {Uint32Array} pixels
     * @param {number} opacity
     */
    draw(maps, step, pixels, opacity) {
      heat.hidden = !maps || opacity === 0
      image.style.filter = maps ? `grayscale(${0.85 * opacity}) brightness(${1 - 0.52 * opacity})` : ''
      if (maps && step < maps.steps) {
        drawHeat(heat, maps.map(step), maps.height, maps.width, maps.peak, pixels, HEAT_SIDE)
      }
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
      const pixels = context?.createImageData(painted.width, painted.height)
      if (!context || !pixels) return
      painted.cells.forEach((cell, at) => {
        if (cell) pixels.data.set([70, 214, 190, 150], 4 * at)
      })
      context.putImageData(pixels, 0, 0)
    },
    /**
     * Where a pointer is, in shares of the picture.
     * @param {PointerEvent | WheelEvent} event
     */
    at(event) {
      const room = layers.getBoundingClientRect()
      return [(event.clientX - room.left) / room.width, (event.clientY - room.top) / room.height]
    },
  }
}
