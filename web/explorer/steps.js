/** The denoising steps: a slider that plays, over a curve of what is shown. */
import {el, icon, put} from './dom.js'
import {drawCurve} from './curve.js'
import {meansOf} from './subject.js'

const PLAY_MS = 180

/** @param {import('./view.js').Context} context */
export function createSteps(context) {
  const {store, t} = context,
    {state} = store
  const play = el('button', {
    class: 'rv-button rv-square',
    type: 'button',
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
  const trace = () =>
    drawCurve(
      curve,
      state.subject ? meansOf(state.subject, state.codes, state.presence) : new Float32Array(),
      state.step,
    )
  new ResizeObserver(trace).observe(curve)
  const tick = () => store.set({step: (state.step + 1) % Math.max(1, count())})

  return {
    element,
    /** @param {Set<string>} changed */
    update(changed) {
      if (changed.has('playing') || changed.has('all')) {
        put(play, icon(state.playing ? 'pause' : 'play'))
        play.title = state.playing ? t('Stop (Space)') : t('Play the steps (Space)')
        clearInterval(timer)
        if (state.playing) timer = window.setInterval(tick, PLAY_MS)
      }
      const last = Math.max(0, count() - 1)
      slider.max = String(last)
      slider.value = String(state.step)
      const step = state.codes?.steps[state.step] ?? 0
      put(
        label,
        el('b', {}, `${t('Step')} ${step + 1}`),
        ` / ${context.run()?.info.total_steps ?? 0}`,
        el('span', {class: 'rv-quiet'}, ` ${phase(last ? state.step / last : 1, t)}`),
      )
      if (['all', 'subject', 'codes', 'presence', 'step'].some(name => changed.has(name))) trace()
    },
    stop() {
      clearInterval(timer)
    },
  }
}

/**
 * What happens at this part of the schedule, in a word.
 * @param {number} share
 * @param {(text: string) => string} t
 */
const phase = (share, t) =>
  share < 0.3 ? t('mostly noise') : share < 0.75 ? t('taking shape') : t('nearly done')
