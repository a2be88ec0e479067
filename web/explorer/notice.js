/** The notice that covers the explorer while there is no run to show. */
import {button, el, icon, replaceChildren} from './dom.js'

/** @typedef {'new' | 'lost' | 'failed' | 'loading'} Kind */

/** @param {import('./view.js').Context} context */
export function createNotice({t, queue}) {
  const element = el('div', {class: 'rv-notice'})
  const runButton = () =>
    button({class: 'rv-button rv-primary', onclick: queue}, icon('play'), t('Run the workflow'))
  /** @type {Record<Kind, (reason: string, retry: () => void) => Node[]>} */
  const contents = {
    new: () => [
      el('h3', {}, t('Nothing to show yet')),
      el(
        'p',
        {},
        t('Run the workflow. Then click something in the image to see what the model represents there.'),
      ),
      runButton(),
    ],
    lost: () => [
      el('h3', {}, t('This workflow came without its run')),
      el(
        'p',
        {},
        t('Recordings stay on the machine that made them. Run the workflow; your choices are still here.'),
      ),
      runButton(),
    ],
    failed: (reason, retry) => [
      el('h3', {}, t('The run could not be opened')),
      el('p', {}, reason),
      button({class: 'rv-button rv-primary', onclick: retry}, t('Try again')),
    ],
    loading: () => [el('div', {class: 'rv-spinner'}), el('p', {}, t('Opening the run …'))],
  }
  /**
   * @param {Kind} kind
   * @param {string} [reason]
   * @param {() => void} [retry]
   */
  const show = (kind, reason = '', retry = () => {}) => {
    element.hidden = false
    const card = el('div', {class: 'rv-notice-card', 'data-notice': kind}, ...contents[kind](reason, retry))
    replaceChildren(element, card)
  }
  const hide = () => {
    element.hidden = true
  }
  show('new')
  return {element, show, hide}
}
