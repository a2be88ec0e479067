/** ComfyUI's own objects, with their types. */
// @ts-ignore: ComfyUI serves these files beside the packs
import {api as itsApi} from '../../../scripts/api.js'
// @ts-ignore
import {app as itsApp} from '../../../scripts/app.js'

/** @type {import('@comfyorg/comfyui-frontend-types').ComfyApp} */
export const app = itsApp
/** @type {import('@comfyorg/comfyui-frontend-types').ComfyApi} */
export const api = itsApi
