/** Shows the explorer at full size: moves its element into a dialog, and back into the node on closing. */
import {el} from './dom.js'

/**
 * @param {HTMLElement} host  The node's element that contains the explorer.
 * @param {HTMLElement} view
 * @param {import('./texts.js').Translate} t
 */
export function createFull(host, view, t) {
  const placeholder = el('div', {class: 'rv-away'}, t('Shown at full size. Press Esc to return.'))
  const dialog = el('dialog', {class: 'rv-dialog', 'aria-label': t('Explorer')})
  dialog.addEventListener('close', () => {
    host.replaceChildren(view)
    dialog.remove()
    view.focus({preventScroll: true})
  })
  const open = () => {
    host.replaceChildren(placeholder)
    dialog.replaceChildren(view)
    document.body.append(dialog)
    dialog.showModal()
    view.focus({preventScroll: true})
  }
  const close = () => {
    if (dialog.open) dialog.close()
  }
  return {close, toggle: () => (dialog.open ? close() : open())}
}
