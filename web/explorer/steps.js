/** The denoising steps: a slider with a play button, and a curve of the shown subject. */
import {button, el, icon, replaceChildren} from './dom.js'
import {drawCurve} from './curve.js'
import {anyChanged} from './store.js'
import {meanCurve} from './subject.js'

const PLAY_MS = 180

/** @param {import('./view.js').Context} context */
export function createSteps(context) {
  const {store, t} = context
  const {state} = store
  const play = button({
    class: 'rv-button rv-square',
    onclick: () => store.set({playing: !state.playing}),
  })
  const slider = el('input', {
    class: 'rv-slider',
    type: 'range',
    min: '0',
    'aria-label': t('Denoising step'),
    oninput: () => store.set({step: Number(slider.value), playing: false}),
  })
  const curve = el('canvas', {class: 'rv-curve', 'aria-hidden': 'true'})
  const label = el('div', {class: 'rv-step'})
  const element = el('div', {class: 'rv-steps'}, play, el('div', {class: 'rv-track'}, curve, slider), label)
  let timer = 0

  const count = () => state.codes?.steps.length ?? 0
  const redrawCurve = () => {
    const {subject, codes, presence, step} = state
    drawCurve(curve, subject ? meanCurve(subject, codes, presence) : new Float32Array(), step)
  }
  new ResizeObserver(redrawCurve).observe(curve)
  const advance = () => store.set({step: (state.step + 1) % Math.max(1, count())})

  return {
    element,
    /** @param {import('./store.js').Changed} changed */
    update(changed) {
      if (anyChanged(changed, ['playing'])) {
        replaceChildren(play, icon(state.playing ? 'pause' : 'play'))
        play.title = state.playing ? t('Stop (Space)') : t('Play the steps (Space)')
        clearInterval(timer)
        if (state.playing) timer = window.setInterval(advance, PLAY_MS)
      }
      const last = Math.max(0, count() - 1)
      slider.max = String(last)
      slider.value = String(state.step)
      const step = state.codes?.steps[state.step] ?? 0
      replaceChildren(
        label,
        el('b', {}, t('Step {step}', {step: step + 1})),
        ` / ${context.run()?.info.totalSteps ?? 0}`,
        el('span', {class: 'rv-quiet'}, ` ${phase(last ? state.step / last : 1, t)}`),
      )
      if (anyChanged(changed, ['subject', 'codes', 'presence', 'step'])) redrawCurve()
    },
    stop() {
      clearInterval(timer)
    },
  }
}

/**
 * Describe in a few words what happens at this share (0 to 1) of the schedule.
 * @param {number} share
 * @param {import('./texts.js').Translate} t
 */
function phase(share, t) {
  if (share < 0.3) return t('mostly noise')
  return share < 0.75 ? t('taking shape') : t('nearly done')
}
