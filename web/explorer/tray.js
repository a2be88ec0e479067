/** The chosen concepts and features, each with a slider from less to more, and the node that steers them. */
import {formatPercent} from './colour.js'
import {button, el, icon, replaceChildren} from './dom.js'
import {paintedShare} from './region.js'
import {anyChanged} from './store.js'

/** The strength of a newly chosen entry, which removes most of the feature or concept. */
export const FIRST_STRENGTH = -2
const MAX_STRENGTH = 6
const STEP = 0.25

/** @param {import('./view.js').Context} context */
export function createTray(context) {
  const {store, t} = context
  const {state} = store
  const rows = el('div', {class: 'rv-chosen', 'data-capture-wheel': 'true'})
  const targetLabel = el('div', {class: 'rv-target', 'aria-live': 'polite'})
  const run = button(
    {class: 'rv-button rv-primary rv-run', onclick: () => context.queue()},
    icon('play'),
    t('Run'),
  )
  const head = el('div', {class: 'rv-tray-head'}, el('h3', {}, t('Steering')), targetLabel, run)
  const element = el('div', {class: 'rv-tray'}, head, rows)

  /** Show which node the choice steers; called whenever the graph may have changed. */
  function updateTarget() {
    const {connected, strength, resetStrength} = context.steerTarget()
    if (!connected) {
      const text = t('Connect FEATURES to “selected” of Steer Features.')
      replaceChildren(targetLabel, el('span', {class: 'rv-warning'}, text))
    } else if (strength === 1) {
      replaceChildren(targetLabel, el('span', {class: 'rv-quiet'}, t('goes to Steer Features')))
    } else {
      const onclick = () => {
        resetStrength?.()
        updateTarget()
      }
      const text = t('Steer Features multiplies by {strength}. Set to 1', {strength})
      replaceChildren(targetLabel, button({class: 'rv-link', onclick}, text))
    }
  }

  /**
   * @param {string} name
   * @param {number} strength
   */
  function choiceRow(name, strength) {
    const isFeature = /^\d+$/.test(name)
    const hookPoint = context.run()?.hookPoint(state.chosenHookPoint)
    const label = isFeature ? context.labels.of(hookPoint, Number(name)) : ''
    const slider = el('input', {
      type: 'range',
      class: 'rv-slider rv-two-sided',
      min: String(-MAX_STRENGTH),
      max: String(MAX_STRENGTH),
      step: String(STEP),
      value: String(strength),
      'aria-label': t('Strength of {name}', {name}),
      oninput: () => context.setStrength(name, Number(slider.value)),
    })
    return el(
      'div',
      {class: 'rv-line', 'data-name': name},
      el(
        'span',
        {class: 'rv-line-name', title: name},
        isFeature ? `#${name}` : name,
        label && el('span', {class: 'rv-label'}, label),
      ),
      el('span', {class: 'rv-end'}, t('less')),
      slider,
      el('span', {class: 'rv-end'}, t('more')),
      el('output', {class: 'rv-strength'}, signed(strength)),
      closeButton(t('Remove {name}', {name}), () => context.setStrength(name, null)),
    )
  }

  function paintedRow() {
    const share = formatPercent(paintedShare(state.painted))
    return el(
      'div',
      {class: 'rv-line'},
      el('span', {class: 'rv-line-name'}, el('span', {class: 'rv-swatch'}), t('Painted region')),
      el('span', {class: 'rv-quiet rv-grow'}, t('{share} of the image, output as MASK', {share})),
      closeButton(t('Clear'), () => store.set({painted: null})),
    )
  }

  return {
    element,
    updateTarget,
    /** @param {import('./store.js').Changed} changed */
    update(changed) {
      if (!anyChanged(changed, ['chosen', 'painted', 'chosenHookPoint', 'hookPoint'])) return
      const inUse = rows.querySelector('input:active, input:focus')
      const count = state.chosen.length + Number(state.painted !== null)
      if (!changed.has('all') && inUse && rows.childElementCount === count) {
        // replacing a slider that is being dragged would end the drag
        rows.querySelectorAll('output').forEach((output, number) => {
          output.textContent = signed(state.chosen[number]?.strength ?? 0)
        })
        return
      }
      const empty = t('Nothing yet. Press Steer beside a concept or a feature, then drag its slider to less.')
      replaceChildren(
        rows,
        ...state.chosen.map(({name, strength}) => choiceRow(name, strength)),
        state.painted && paintedRow(),
        count === 0 && el('div', {class: 'rv-empty'}, empty),
      )
      updateTarget()
    },
  }
}

/**
 * @param {string} title
 * @param {() => void} onclick
 */
const closeButton = (title, onclick) =>
  button({class: 'rv-button rv-square rv-small', title, 'aria-label': title, onclick}, icon('close'))

/** @param {number} strength */
const signed = strength => `${strength > 0 ? '+' : strength < 0 ? '−' : ''}${Math.abs(strength)}`
