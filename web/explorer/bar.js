/** The bar at the top: hook points, roles, images of the batch, opacity, tools, search, full size. */
import {button, el, iconButton, replaceChildren} from './dom.js'
import {anyChanged} from './store.js'

/**
 * @typedef {import('./texts.js').Translate} Translate
 * @typedef {import('./store.js').Tool} Tool
 */

/**
 * @param {import('./view.js').Context} context
 * @param {() => void} toggleFull
 */
export function createBar(context, toggleFull) {
  const {store, t} = context
  const {state} = store
  const hookPoints = el('div', {class: 'rv-tabs', role: 'tablist', 'aria-label': t('Layer of the model')})
  const roles = el('div', {
    class: 'rv-switch',
    role: 'group',
    'aria-label': t('Prompt or negative prompt'),
  })
  const items = el('select', {
    class: 'rv-input',
    'aria-label': t('Image of the batch'),
    onchange: () => store.set({item: Number(items.value)}),
  })
  const opacity = el('input', {
    class: 'rv-slider rv-short',
    type: 'range',
    min: '0',
    max: '1',
    step: '0.05',
    'aria-label': t('Heat'),
    title: t('How strongly the heat covers the image'),
    oninput: () => store.set({opacity: Number(opacity.value)}),
  })
  /** @type {[Tool, string][]} */
  const titles = [
    ['inspect', t('Inspect: click or drag a box (V)')],
    ['paint', t('Paint a region (B)')],
    ['erase', t('Erase (E)')],
  ]
  const tools = titles.map(([tool, title]) => ({
    tool,
    element: iconButton(tool, title, () => store.set({tool})),
  }))
  const search = el('input', {
    class: 'rv-input rv-search',
    type: 'search',
    placeholder: t('Search: glasses, 1203 …'),
    'aria-label': t('Search by number or name'),
    oninput: () => store.set({search: search.value}),
  })
  const element = el(
    'div',
    {class: 'rv-bar'},
    hookPoints,
    roles,
    items,
    el('label', {class: 'rv-field'}, el('span', {class: 'rv-quiet'}, t('Heat')), opacity),
    el(
      'div',
      {class: 'rv-switch', role: 'group', 'aria-label': t('Tool')},
      ...tools.map(tool => tool.element),
    ),
    iconButton('reset', t('Show the whole image (0)'), () => store.set({zoom: 1, panX: 0, panY: 0})),
    el('span', {class: 'rv-grow'}),
    search,
    iconButton('full', t('Full size (F)'), toggleFull),
  )

  /** @param {string} name */
  const hookPointTab = name =>
    button(
      {
        class: 'rv-tab',
        role: 'tab',
        'aria-selected': String(name === state.hookPoint),
        title: name,
        onclick: () => {
          if (name === state.hookPoint) return
          store.set({hookPoint: name, subject: null, page: false, codes: null, presence: null})
        },
      },
      hookPointTitle(name, t),
    )

  /** @param {string} role */
  const roleTab = role =>
    button(
      {
        class: 'rv-tab',
        'aria-pressed': String(role === state.role),
        title: role,
        onclick: () => store.set({role}),
      },
      roleTitle(role, t),
    )

  return {
    element,
    /** @param {import('./store.js').Changed} changed */
    update(changed) {
      const run = context.run()
      const hookPoint = run?.hookPoint(state.hookPoint)
      const count = hookPoint?.items ?? 0
      if (anyChanged(changed, ['hookPoint'])) {
        replaceChildren(hookPoints, ...(run?.info.hookPoints ?? []).map(({name}) => hookPointTab(name)))
        replaceChildren(
          items,
          ...Array.from({length: count}, (_, item) =>
            el('option', {value: String(item)}, t('Image {number}', {number: item + 1})),
          ),
        )
        items.hidden = count < 2
      }
      if (anyChanged(changed, ['hookPoint', 'role'])) {
        replaceChildren(roles, ...(hookPoint?.roles ?? []).map(roleTab))
        roles.hidden = (hookPoint?.roles.length ?? 0) < 2
      }
      items.value = String(state.item)
      opacity.value = String(state.opacity)
      if (search.value !== state.search) search.value = state.search
      for (const {tool, element} of tools) element.setAttribute('aria-pressed', String(tool === state.tool))
    },
  }
}

/**
 * Return the title of a hook point: a readable one for a UNet's hook points, else its name.
 * @param {string} name
 * @param {Translate} t
 */
function hookPointTitle(name, t) {
  const [, part, block = ''] = /^(input_blocks|middle_block|output_blocks)\.(\d+)/.exec(name) ?? []
  if (part === 'input_blocks') return t('down {block}', {block})
  if (part === 'middle_block') return t('middle')
  return part ? t('up {block}', {block}) : name
}

/**
 * @param {string} role
 * @param {Translate} t
 */
function roleTitle(role, t) {
  if (role === 'cond') return t('prompt')
  return role === 'uncond' ? t('negative') : role
}
