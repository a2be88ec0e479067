/** ComfyUI's app and API objects, with their types. */
// @ts-ignore: these files exist only where ComfyUI serves them, next to the packs
import {api as comfyApi} from '../../../scripts/api.js'
// @ts-ignore
import {app as comfyApp} from '../../../scripts/app.js'

/** @type {import('@comfyorg/comfyui-frontend-types').ComfyApp} */
export const app = comfyApp
/** @type {import('@comfyorg/comfyui-frontend-types').ComfyApi} */
export const api = comfyApi
