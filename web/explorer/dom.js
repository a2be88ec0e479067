/** Helpers that create an element in one expression. */

/** @typedef {Node | string | null | undefined | false} Child  null, undefined and false add nothing. */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties]
 *   `class`, `style`, `on...` listeners, attributes whose names contain a dash, or properties of the element.
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue
    if (name === 'class') element.className = value
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (name.includes('-') || name === 'role' || name === 'for') element.setAttribute(name, value)
    else if (name === 'style') Object.assign(element.style, value)
    else Reflect.set(element, name, value)
  }
  replaceChildren(element, ...children)
  return element
}

/**
 * Replace the children of an element.
 * @param {Element} element
 * @param {...Child} children
 */
export function replaceChildren(element, ...children) {
  element.replaceChildren(
    ...children.filter(child => child !== null && child !== undefined && child !== false),
  )
}

/** Icons of 16 x 16 pixels, drawn in the colour of the text around them. */
const PATHS = {
  inspect: 'M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4',
  paint: 'M13.5 2.5 7 9M7 9c-2 0-3 1-3 2.5S2.5 14 2 14c3 .6 6.5 0 6.5-3C8.5 10 8 9 7 9Z',
  erase: 'M9 3l4 4-6 6H4l-2-2zM6 6l4 4M8 13h6',
  play: 'M4 2.5v11l9-5.5z',
  pause: 'M4.5 3v10M11.5 3v10',
  full: 'M9 2h5v5M14 2 9 7M7 14H2V9M2 14l5-5',
  close: 'M3 3l10 10M13 3 3 13',
  back: 'M10 3 5 8l5 5',
  reset: 'M3 8a5 5 0 1 0 1.5-3.5M3 2v3.5h3.5',
}

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('viewBox', '0 0 16 16')
  svg.setAttribute('class', 'rv-icon')
  svg.setAttribute('aria-hidden', 'true')
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path')
  path.setAttribute('d', PATHS[name])
  svg.append(path)
  return svg
}

/**
 * @param {Record<string, any>} properties
 * @param {...Child} children
 */
export const button = (properties, ...children) => el('button', {type: 'button', ...properties}, ...children)

/**
 * Create a button with an icon; screen readers read out its title.
 * @param {keyof typeof PATHS} name
 * @param {string} title
 * @param {() => void} onclick
 */
export const iconButton = (name, title, onclick) =>
  button({class: 'rv-button rv-square', title, 'aria-label': title, onclick}, icon(name))
