/** What lies over the explorer while there is no run to look into. */
import {el, icon, put} from './dom.js'

/** @param {import('./view.js').Context} context */
export function createNotice({t, queue}) {
  const element = el('div', {class: 'rv-notice'})
  const run = () =>
    el(
      'button',
      {type: 'button', class: 'rv-button rv-primary', onclick: queue},
      icon('run'),
      t('Run the workflow'),
    )
  const notices = {
    new: () => [
      el('h3', {}, t('Nothing to look into yet')),
      el(
        'p',
        {},
        t(
          'Run the workflow. Then click on something in the picture to see what the model had in mind there.',
        ),
      ),
      run(),
    ],
    lost: () => [
      el('h3', {}, t('This workflow came without its run')),
      el(
        'p',
        {},
        t(
          'What was recorded stays on the machine it was made on. Your choices are still here: run the workflow to fill the explorer again.',
        ),
      ),
      run(),
    ],
    failed: (/** @type {string} */ reason, /** @type {() => void} */ again) => [
      el('h3', {}, t('The run could not be opened')),
      el('p', {}, reason),
      el('button', {type: 'button', class: 'rv-button rv-primary', onclick: again}, t('Try again')),
    ],
    loading: () => [el('div', {class: 'rv-spinner'}), el('p', {}, t('Opening the run …'))],
  }
  /**
   * @param {keyof typeof notices | ''} what
   * @param {string} [reason]
   * @param {() => void} [again]
   */
  const tell = (what, reason = '', again = () => {}) => {
    element.hidden = !what
    if (what)
      put(element, el('div', {class: 'rv-notice-card', 'data-notice': what}, ...notices[what](reason, again)))
  }
  tell('new')
  return {element, tell}
}
