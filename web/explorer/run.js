/**
 * One run on the server, asked for part by part and only when a part is looked at.
 *
 * @typedef {object} Place  A hook point of the run.
 * @property {string} name
 * @property {[number, number]} grid  Height and width.
 * @property {number} features
 * @property {number} k
 * @property {string[]} roles
 * @property {number[]} steps
 * @property {number} items
 * @property {Record<string, number[]>} labels
 * @property {{name: string, features: number[]}[]} concepts
 * @property {boolean} neighbours
 * @property {string} missing  What to do about an SAE that is not in memory any more; "" where none was dropped.
 * @property {boolean} examples  Whether there is a feature index.
 * @property {string} dictionary  Names the dictionary.
 *
 * @typedef {{key: string, total_steps: number, sigmas: number[], places: Place[]}} Info
 * @typedef {(path: string) => Promise<Response>} Fetch
 * @typedef {{feature: number, cosine: number}} Neighbour
 */
import {openCodes} from './codes.js'
import {openExamples} from './examples.js'
import {openPresence} from './presence.js'

/** Memory for codes; what was looked at longest ago goes first. */
const MOST_BYTES = 160 * 2 ** 20

/** A run that the server does not have any more, or an answer that it refused. */
export class Refused extends Error {
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
  /** @type {Info} */
  const info = await (await answered(fetch(path))).json()
  // in the order of the model, and the prompt's own half first
  info.places.sort((a, b) => a.name.localeCompare(b.name, 'en', {numeric: true}))
  for (const place of info.places) place.roles.sort()
  return new Run(path, info, fetch)
}

export class Run {
  /**
   * @param {string} path
   * @param {Info} info
   * @param {Fetch} fetch
   */
  constructor(path, info, fetch) {
    this.info = info
    this._path = path
    this._fetch = fetch
    /** @type {Map<string, {bytes: number, value: Promise<any>}>} */
    this._kept = new Map()
  }

  /** @param {string} name */
  place(name) {
    return this.info.places.find(place => place.name === name)
  }

  /**
   * @param {string} place
   * @param {string} role
   * @param {number} item
   * @returns {Promise<import('./codes.js').Codes>}
   */
  codes(place, role, item) {
    return this._get('codes', {hook_point: place, role, item}, openCodes)
  }

  /**
   * @param {string} place
   * @param {string} role
   * @param {number} item
   * @returns {Promise<import('./presence.js').Presence>}
   */
  presence(place, role, item) {
    const names = (this.place(place)?.concepts ?? []).map(concept => concept.name)
    return this._get('concepts', {hook_point: place, role, item}, buffer => openPresence(buffer, names))
  }

  /**
   * @param {string} place
   * @param {number} feature
   * @returns {Promise<Neighbour[]>}
   */
  async neighbours(place, feature) {
    if (!this.place(place)?.neighbours) return []
    const answer = await answered(
      this._fetch(`${this._path}/neighbours?${query({hook_point: place, feature})}`),
    )
    return (await answer.json()).neighbours
  }

  /**
   * What a feature fires on most; null where there is no feature index.
   * @param {string} place
   * @param {number} feature
   * @returns {Promise<import('./examples.js').Examples | null>}
   */
  async examples(place, feature) {
    return this.place(place)?.examples
      ? this._get('examples', {hook_point: place, feature}, openExamples)
      : null
  }

  /**
   * @template {{bytes: number}} T
   * @param {string} what
   * @param {Record<string, string | number>} question
   * @param {(buffer: ArrayBuffer) => T} open
   * @returns {Promise<T>}
   */
  _get(what, question, open) {
    const name = `${what}?${query(question)}`
    let entry = this._kept.get(name)
    if (!entry) {
      const value = answered(this._fetch(`${this._path}/${name}`)).then(async answer =>
        open(await answer.arrayBuffer()),
      )
      const made = {bytes: 0, value}
      entry = made
      value.then(
        opened => {
          made.bytes = opened.bytes
        },
        () => this._kept.delete(name),
      )
    }
    this._kept.delete(name)
    this._kept.set(name, entry)
    let bytes = [...this._kept.values()].reduce((sum, kept) => sum + kept.bytes, 0)
    for (const [old, kept] of this._kept) {
      if (bytes <= MOST_BYTES || old === name) break
      this._kept.delete(old)
      bytes -= kept.bytes
    }
    return entry.value
  }
}

/** @param {Record<string, string | number>} question */
const query = question =>
  Object.entries(question)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&')

/**
 * @param {Promise<Response>} asked
 * @returns {Promise<Response>}
 */
async function answered(asked) {
  const answer = await asked
  if (answer.ok) return answer
  const {error = `The server answered ${answer.status}.`} = await answer.json().catch(() => ({}))
  throw new Refused(answer.status, error)
}
