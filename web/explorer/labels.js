/**
 * Stores the names that the user gives to features: one file per dictionary, in ComfyUI's user data.
 *
 * @typedef {object} LabelStorage
 * @property {(file: string) => Promise<string | null>} load  null if there is no such file.
 * @property {(file: string, text: string) => Promise<void>} save
 *   Like load, throws if it fails.
 */

const MAX_LENGTH = 60

/** Each change waits for the previous one, so that two explorers never write the same file at once. */
let lastChange = Promise.resolve()

/**
 * Create a storage in ComfyUI's user data.
 * @param {Pick<import('@comfyorg/comfyui-frontend-types').ComfyApi, 'getUserData' | 'storeUserData'>} api
 * @returns {LabelStorage}
 */
export const userDataStorage = api => ({
  async load(file) {
    const response = await api.getUserData(file)
    if (response.status === 404) return null
    if (!response.ok) throw new Error(`The server answered with status ${response.status}.`)
    return response.text()
  },
  async save(file, text) {
    await api.storeUserData(file, text, {stringify: false, throwOnError: true, overwrite: true})
  },
})

export class Labels {
  #storage
  #dictionary = ''
  #loaded = false
  /** @type {Map<number, string>} */
  #own = new Map()

  /** @param {LabelStorage} storage */
  constructor(storage) {
    this.#storage = storage
  }

  /**
   * Load the names for a dictionary; throws if the file with the names exists but cannot be read.
   * @param {string} dictionary
   */
  async open(dictionary) {
    if (dictionary === this.#dictionary && this.#loaded) return
    this.#dictionary = dictionary
    this.#loaded = false
    this.#own = new Map()
    const saved = await this.#load(dictionary)
    if (dictionary === this.#dictionary) this.#replaceOwn(saved)
  }

  /**
   * Return the user's name for a feature, else the label from its SAE, else "".
   * @param {import('./run.js').HookPoint | undefined} hookPoint
   * @param {number} feature
   */
  of(hookPoint, feature) {
    return this.#own.get(feature) ?? builtInLabel(hookPoint, feature)
  }

  /**
   * Name a feature; an empty name removes the user's name. Names saved meanwhile by other explorers are kept.
   * If the names cannot be read or saved, throws and changes nothing.
   * @param {number} feature
   * @param {string} label
   */
  set(feature, label) {
    const dictionary = this.#dictionary
    const text = label.trim().slice(0, MAX_LENGTH)
    const change = lastChange.then(async () => {
      const saved = await this.#load(dictionary)
      if (text) saved[feature] = text
      else delete saved[feature]
      await this.#storage.save(fileOf(dictionary), JSON.stringify(saved, null, 1))
      if (dictionary === this.#dictionary) this.#replaceOwn(saved)
    })
    lastChange = change.catch(() => {})
    return change
  }

  /** All names that the user has given: [feature, name]. */
  get own() {
    return [...this.#own]
  }

  /**
   * Read the names that the file contains now.
   * @param {string} dictionary
   * @returns {Promise<Record<string, unknown>>}
   */
  async #load(dictionary) {
    const saved = JSON.parse((await this.#storage.load(fileOf(dictionary))) || '{}')
    if (typeof saved !== 'object' || saved === null || Array.isArray(saved)) {
      throw new Error(`${fileOf(dictionary)} does not hold feature names.`)
    }
    return saved
  }

  /** @param {Record<string, unknown>} saved */
  #replaceOwn(saved) {
    this.#own = new Map()
    for (const [feature, label] of Object.entries(saved)) {
      if (/^\d+$/.test(feature) && typeof label === 'string') {
        this.#own.set(Number(feature), label.slice(0, MAX_LENGTH))
      }
    }
    this.#loaded = true
  }
}

/** @param {string} dictionary */
const fileOf = dictionary => `revelio/labels_${dictionary}.json`

/**
 * Return the SAE's label whose list of features ranks this feature highest.
 * @param {import('./run.js').HookPoint | undefined} hookPoint
 * @param {number} feature
 */
export function builtInLabel(hookPoint, feature) {
  let best = ''
  let bestRank = Infinity
  for (const [label, features] of Object.entries(hookPoint?.labels ?? {})) {
    const rank = features.indexOf(feature)
    if (rank >= 0 && rank < bestRank) [best, bestRank] = [label, rank]
  }
  return best
}
