/**
 * One run on the server. Each part is fetched when it is first needed.
 *
 * @typedef {object} HookPoint  A hook point at which the run was recorded.
 * @property {string} name
 * @property {[number, number]} grid  Height and width.
 * @property {number} features
 * @property {number} k
 * @property {string[]} roles
 * @property {number[]} steps
 * @property {number} items  Images in the batch.
 * @property {Record<string, number[]>} labels
 * @property {{name: string, features: number[]}[]} concepts
 * @property {boolean} neighbours  Whether the server can find similar features.
 * @property {string} missing  What the user can do if the SAE is no longer in memory; "" if it is.
 * @property {boolean} examples  Whether there is a feature index.
 * @property {string} dictionary  A key that identifies the dictionary.
 *
 * @typedef {{key: string, totalSteps: number, hookPoints: HookPoint[]}} Info
 * @typedef {(path: string) => Promise<Response>} Fetch
 * @typedef {{feature: number, cosine: number}} Neighbour
 */
import {openCodes} from './codes.js'
import {openExamples} from './examples.js'
import {openPresence} from './presence.js'

/** The most memory that fetched parts may use; the least recently used part is dropped first. */
const MAX_BYTES = 160 * 2 ** 20

/** Thrown if a run is no longer on the server, or if the server refused a request. */
export class ServerError extends Error {
  /**
   * @param {number} status
   * @param {string} sentence
   */
  constructor(status, sentence) {
    super(sentence)
    this.status = status
  }
}

/**
 * @param {string} key
 * @param {Fetch} fetch
 */
export async function openRun(key, fetch) {
  const path = `/revelio/traces/${key}`
  /** @type {{total_steps: number, places: HookPoint[]}} */
  const {total_steps: totalSteps, places: hookPoints} = await (await okResponse(fetch(path))).json()
  // sort hook points in the order of the model; put the positive prompt's roles first
  hookPoints.sort((a, b) => a.name.localeCompare(b.name, 'en', {numeric: true}))
  for (const {roles} of hookPoints) roles.sort()
  return new Run(path, {key, totalSteps, hookPoints}, fetch)
}

export class Run {
  #path
  #fetch
  /** @type {Map<string, {bytes: number, value: Promise<any>}>} */
  #cache = new Map()

  /**
   * @param {string} path
   * @param {Info} info
   * @param {Fetch} fetch
   */
  constructor(path, info, fetch) {
    this.info = info
    this.#path = path
    this.#fetch = fetch
  }

  /** @param {string} name */
  hookPoint(name) {
    return this.info.hookPoints.find(hookPoint => hookPoint.name === name)
  }

  /**
   * @param {string} name  Name of the hook point, here and below.
   * @param {string} role
   * @param {number} item
   * @returns {Promise<import('./codes.js').Codes>}
   */
  codes(name, role, item) {
    return this.#get('codes', {hook_point: name, role, item}, openCodes)
  }

  /**
   * @param {string} name
   * @param {string} role
   * @param {number} item
   * @returns {Promise<import('./presence.js').Presence>}
   */
  presence(name, role, item) {
    const concepts = (this.hookPoint(name)?.concepts ?? []).map(concept => concept.name)
    return this.#get('concepts', {hook_point: name, role, item}, buffer => openPresence(buffer, concepts))
  }

  /**
   * @param {string} name
   * @param {number} feature
   * @returns {Promise<Neighbour[]>}
   */
  async neighbours(name, feature) {
    if (!this.hookPoint(name)?.neighbours) return []
    const question = query({hook_point: name, feature})
    const response = await okResponse(this.#fetch(`${this.#path}/neighbours?${question}`))
    return (await response.json()).neighbours
  }

  /**
   * Fetch the image crops on which a feature fires most; null if there is no feature index.
   * @param {string} name
   * @param {number} feature
   * @returns {Promise<import('./examples.js').Examples | null>}
   */
  async examples(name, feature) {
    if (!this.hookPoint(name)?.examples) return null
    return this.#get('examples', {hook_point: name, feature}, openExamples)
  }

  /**
   * @template {{bytes: number}} T
   * @param {string} what
   * @param {Record<string, string | number>} question
   * @param {(buffer: ArrayBuffer) => T} open
   * @returns {Promise<T>}
   */
  #get(what, question, open) {
    const address = `${what}?${query(question)}`
    const entry = this.#cache.get(address) ?? this.#request(address, open)
    this.#cache.delete(address)
    this.#cache.set(address, entry) // the most recently used part comes last
    this.#makeRoom(address)
    return entry.value
  }

  /**
   * @template {{bytes: number}} T
   * @param {string} address
   * @param {(buffer: ArrayBuffer) => T} open
   */
  #request(address, open) {
    const value = okResponse(this.#fetch(`${this.#path}/${address}`)).then(async response =>
      open(await response.arrayBuffer()),
    )
    const entry = {bytes: 0, value}
    value.then(
      opened => {
        entry.bytes = opened.bytes
      },
      () => this.#cache.delete(address),
    )
    return entry
  }

  /** @param {string} needed  Address of the part that must not be dropped. */
  #makeRoom(needed) {
    let bytes = [...this.#cache.values()].reduce((sum, entry) => sum + entry.bytes, 0)
    for (const [address, entry] of this.#cache) {
      if (bytes <= MAX_BYTES || address === needed) break
      this.#cache.delete(address)
      bytes -= entry.bytes
    }
  }
}

/** @param {Record<string, string | number>} question */
const query = question =>
  Object.entries(question)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&')

/**
 * Return the response of a successful request; otherwise throw a ServerError with the server's explanation.
 * @param {Promise<Response>} request
 * @returns {Promise<Response>}
 */
async function okResponse(request) {
  const response = await request
  if (response.ok) return response
  const {error = `The server answered with status ${response.status}.`} = await response
    .json()
    .catch(() => ({}))
  throw new ServerError(response.status, error)
}
