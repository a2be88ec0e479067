/** Elements in one line each. */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties]  `class`, `on...` listeners, attributes with a dash, or properties.
 * @param {...(Node | string | null | false)} children
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
  put(element, ...children)
  return element
}

/**
 * Replace what is in an element.
 * @param {Element} element
 * @param {...(Node | string | null | false)} children
 */
export function put(element, ...children) {
  element.replaceChildren(...children.filter(child => child !== null && child !== false))
}

/** Icons of 16 x 16, drawn with the text's colour. */
const PATHS = {
  look: 'M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4',
  paint: 'M13.5 2.5 7 9M7 9c-2 0-3 1-3 2.5S2.5 14 2 14c3 .6 6.5 0 6.500-3C8.500 10 8 9 7 9Z',
  erase: 'M9 3l4 4-6 6H4l-2-2zM6 6l4 4M8 13h6',
  play: 'M4 2.500v11l9-5.500z',
  pause: 'M4.500 3v10M11.500 3v10',
  full: 'M9 2h5v5M14 2 9 7M7 14H2V9M2 14l5-5',
  close: 'M3 3l10 10M13 3 3 13',
  back: 'M10 3 5 8l5 5',
  search: 'M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10ZM11 11l3.500 3.500',
  reset: 'M3 8a5 5 0 1 0 1.500-3.500M3 2v3.500h3.500',
  run: 'M4 2.500v11l9-5.500z',
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
 * A button with an icon; its title is what screen readers say.
 * @param {keyof typeof PATHS} name
 * @param {string} title
 * @param {() => void} onclick
 */
export const iconButton = (name, title, onclick) =>
  el(
    'button',
    {class: 'rv-button rv-square', type: 'button', title, 'aria-label': title, onclick},
    icon(name),
  )
