/** Gives every Explorer node of the graph its view. */
import {api, app} from './explorer/comfy.js'
import {NODE, addExplorer} from './explorer/node.js'
import {createTranslate, explorerTexts} from './explorer/texts.js'

const sheet = document.createElement('link')
sheet.rel = 'stylesheet'
sheet.href = new URL('./explorer/style.css', import.meta.url).href
document.head.append(sheet)

let texts = explorerTexts({})
const t = createTranslate(
  () => texts,
  () => String(app.extensionManager.setting.get('Comfy.Locale') ?? 'en'),
)

app.registerExtension({
  name: 'revelio.explorer',
  /** ComfyUI waits for this before it makes nodes. */
  async init() {
    // The frontend merges the packs' locales into its own texts, but gives extensions no way to read them,
    // and loses them when it loads another language (frontend 1.32.9, src/i18n.ts; repaired later by
    // https://github.com/Comfy-Org/ComfyUI_frontend/pull/7214): so they are fetched here.
    try {
      texts = explorerTexts(await api.getCustomNodesI18n())
    } catch (problem) {
      console.warn('Revelio: the explorer stays in English, as its translations could not be read.', problem)
    }
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) addExplorer(node, t)
  },
})
