/** The explorer in full size: the same element, moved into a dialog and back. */
import {el} from './dom.js'

/**
 * @param {HTMLElement} host  Where the view lives in the node.
 * @param {HTMLElement} view
 * @param {(text: string) => string} t
 */
export function createFull(host, view, t) {
  const away = el('div', {class: 'rv-away'}, t('Shown in full size. Esc brings it back.'))
  const dialog = el('dialog', {class: 'rv-dialog', 'aria-label': t('Explorer')})
  dialog.addEventListener('close', () => {
    host.replaceChildren(view)
    dialog.remove()
    view.focus({preventScroll: true})
  })
  return {
    toggle() {
      if (dialog.open) return dialog.close()
      host.replaceChildren(away)
      dialog.replaceChildren(view)
      document.body.append(dialog)
      dialog.showModal()
      view.focus({preventScroll: true})
    },
    close() {
      if (dialog.open) dialog.close()
    },
  }
}
