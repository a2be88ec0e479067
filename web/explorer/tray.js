/** What was chosen for steering, each with a slider from less to more, and where it goes. */
import {el, icon, put} from './dom.js'
import {paintedShare} from './region.js'
import {percent} from './colour.js'

const MOST = 6
/** Detents of the sliders, where nothing happens. */
const STEP = 0.25

/** @param {import('./view.js').Context} context */
export function createTray(context) {
  const {store, t} = context,
    {state} = store
  const lines = el('div', {class: 'rv-chosen', 'data-capture-wheel': 'true'}),
    target = el('div', {class: 'rv-target', 'aria-live': 'polite'})
  const run = el(
    'button',
    {type: 'button', class: 'rv-button rv-primary rv-run', onclick: () => context.queue()},
    icon('run'),
    t('Run'),
  )
  const element = el(
    'div',
    {class: 'rv-tray'},
    el('div', {class: 'rv-tray-head'}, el('h3', {}, t('Steering')), target, run),
    lines,
  )

  return {
    element,
    /** @param {Set<string>} changed */
    update(changed) {
      if (!['all', 'chosen', 'painted', 'chosenPlace', 'place'].some(name => changed.has(name))) return
      const dragged = lines.querySelector('input:active, input:focus')
      if (
        !changed.has('all') &&
        dragged &&
        lines.childElementCount === state.chosen.length + Number(Boolean(state.painted))
      ) {
        return lines.querySelectorAll('output').forEach((output, at) => {
          output.textContent = words(state.chosen[at]?.strength ?? 0)
        })
      }
      put(
        lines,
        ...state.chosen.map(({name, strength}) => line(name, strength)),
        state.painted && paintedLine(),
        !state.chosen.length &&
          !state.painted &&
          el(
            'div',
            {class: 'rv-empty'},
            t('Nothing yet. Press Steer beside a concept or a feature, then drag it to less.'),
          ),
      )
      this.aim()
    },
    /** Say where the choice goes; asked again whenever the graph may have changed. */
    aim() {
      const aim = context.target()
      put(
        target,
        aim.connected
          ? null
          : el('span', {class: 'rv-warning'}, t('Connect FEATURES to “selected” of Steer Features.')),
        aim.connected &&
          aim.strength !== 1 &&
          el(
            'button',
            {
              type: 'button',
              class: 'rv-link',
              onclick: () => {
                aim.fix?.()
                this.aim()
              },
            },
            `${t('Steer Features multiplies by')} ${aim.strength}. ${t('Set to 1')}`,
          ),
        aim.connected && aim.strength === 1 && el('span', {class: 'rv-quiet'}, t('goes to Steer Features')),
      )
    },
  }

  /**
   * @param {string} name
   * @param {number} strength
   */
  function line(name, strength) {
    const place = context.run()?.place(state.chosenPlace)
    const label = /^\d+$/.test(name) ? context.labels.of(place, Number(name)) : ''
    const output = el('output', {class: 'rv-strength'}, words(strength))
    const slider = el('input', {
      type: 'range',
      class: 'rv-slider rv-two-sided',
      min: String(-MOST),
      max: String(MOST),
      step: String(STEP),
      value: String(strength),
      'aria-label': `${t('Strength of')} ${name}`,
      oninput: () => context.setStrength(name, Number(slider.value)),
    })
    return el(
      'div',
      {class: 'rv-line', 'data-name': name},
      el(
        'span',
        {class: 'rv-line-name', title: name},
        /^\d+$/.test(name) ? `#${name}` : name,
        label && el('span', {class: 'rv-label'}, label),
      ),
      el('span', {class: 'rv-end'}, t('less')),
      slider,
      el('span', {class: 'rv-end'}, t('more')),
      output,
      el(
        'button',
        {
          type: 'button',
          class: 'rv-button rv-square rv-small',
          title: t('Take it away'),
          'aria-label': `${t('Take it away')}: ${name}`,
          onclick: () => context.setStrength(name, null),
        },
        icon('close'),
      ),
    )
  }

  function paintedLine() {
    return el(
      'div',
      {class: 'rv-line'},
      el('span', {class: 'rv-line-name'}, el('span', {class: 'rv-swatch'}), t('Painted region')),
      el(
        'span',
        {class: 'rv-quiet rv-grow'},
        `${percent(paintedShare(state.painted))} ${t('of the picture, goes out as MASK')}`,
      ),
      el(
        'button',
        {
          type: 'button',
          class: 'rv-button rv-square rv-small',
          title: t('Clear'),
          'aria-label': t('Clear'),
          onclick: () => store.set({painted: null}),
        },
        icon('close'),
      ),
    )
  }

  /** @param {number} strength */
  function words(strength) {
    return `${strength > 0 ? '+' : strength < 0 ? '−' : ''}${Math.abs(strength)}`
  }
}
