/** The top line: places of the model, whose half, which picture, opacity, tools, search, full size. */
import {el, iconButton, put} from './dom.js'

/**
 * @param {import('./view.js').Context} context
 * @param {() => void} toggleFull
 */
export function createBar(context, toggleFull) {
  const {store, t} = context,
    {state} = store
  const places = el('div', {class: 'rv-tabs', role: 'tablist', 'aria-label': t('Place in the model')})
  const roles = el('div', {class: 'rv-switch', role: 'group', 'aria-label': t('Whose features')})
  const items = el('select', {
    class: 'rv-input',
    'aria-label': t('Picture of the batch'),
    onchange: () => store.set({item: Number(items.value)}),
  })
  const opacity = el('input', {
    class: 'rv-slider rv-short',
    type: 'range',
    min: '0',
    max: '1',
    step: '0.05',
    'aria-label': t('Heat'),
    title: t('How much the heat covers the picture'),
    oninput: () => store.set({opacity: Number(opacity.value)}),
  })
  const tools = el(
    'div',
    {class: 'rv-switch', role: 'group', 'aria-label': t('Tool')},
    iconButton('look', t('Look: click or drag a box (V)'), () => store.set({tool: 'look'})),
    iconButton('paint', t('Paint a region (B)'), () => store.set({tool: 'paint'})),
    iconButton('erase', t('Rub out (E)'), () => store.set({tool: 'erase'})),
  )
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
    places,
    roles,
    items,
    el('label', {class: 'rv-field'}, el('span', {class: 'rv-quiet'}, t('Heat')), opacity),
    tools,
    iconButton('reset', t('Whole picture in view (0)'), () => store.set({zoom: 1, panX: 0, panY: 0})),
    el('span', {class: 'rv-grow'}),
    search,
    iconButton('full', t('Full size (F)'), toggleFull),
  )

  return {
    element,
    /** @param {Set<string>} changed */
    update(changed) {
      const run = context.run(),
        place = run?.place(state.place)
      if (changed.has('all') || changed.has('place')) {
        put(
          places,
          ...(run?.info.places ?? []).map(({name}) =>
            el(
              'button',
              {
                type: 'button',
                class: 'rv-tab',
                role: 'tab',
                'aria-selected': String(name === state.place),
                title: name,
                onclick: () => {
                  if (name !== state.place)
                    store.set({place: name, subject: null, page: false, codes: null, presence: null})
                },
              },
              placeName(name, t),
            ),
          ),
        )
        put(
          items,
          ...Array.from({length: place?.items ?? 0}, (_, item) =>
            el('option', {value: String(item)}, `${t('Picture')} ${item + 1}`),
          ),
        )
        items.hidden = (place?.items ?? 0) < 2
      }
      if (['all', 'place', 'role'].some(name => changed.has(name))) {
        put(
          roles,
          ...(place?.roles ?? []).map(role =>
            el(
              'button',
              {
                type: 'button',
                class: 'rv-tab',
                'aria-pressed': String(role === state.role),
                title: role,
                onclick: () => store.set({role}),
              },
              roleName(role, t),
            ),
          ),
        )
        roles.hidden = (place?.roles.length ?? 0) < 2
      }
      items.value = String(state.item)
      opacity.value = String(state.opacity)
      if (search.value !== state.search) search.value = state.search
      ;[...tools.children].forEach((tool, at) =>
        tool.setAttribute('aria-pressed', String(['look', 'paint', 'erase'][at] === state.tool)),
      )
    },
  }
}

/**
 * A hook point in words where its name is one of a UNet's; the name itself stays in the tooltip.
 * @param {string} name
 * @param {(text: string) => string} t
 */
function placeName(name, t) {
  const found = /^(input_blocks|middle_block|output_blocks)\.(\d+)/.exec(name)
  if (!found) return name
  if (found[1] === 'middle_block') return t('middle')
  return `${found[1] === 'input_blocks' ? t('down') : t('up')} ${found[2]}`
}

/**
 * @param {string} role
 * @param {(text: string) => string} t
 */
function roleName(role, t) {
  if (role === 'cond') return t('prompt')
  return role === 'uncond' ? t('negative') : role
}
