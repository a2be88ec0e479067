/** Gives every Explorer node of the graph its view. */
import {app} from './explorer/comfy.js'
import {NODE, fitExplorer} from './explorer/node.js'

const sheet = document.createElement('link')
sheet.rel = 'stylesheet'
sheet.href = new URL('./explorer/style.css', import.meta.url).href
document.head.append(sheet)

app.registerExtension({
  name: 'revelio.explorer',
  nodeCreated(node) {
    if (node.comfyClass === NODE) fitExplorer(node)
  },
})
