/**
 * The shown run and the run that it is compared with. Requests are independent: a failure of the second run
 * does not affect the first, and a late response never replaces a newer one.
 *
 * @typedef {import('./run.js').Fetch} Fetch
 * @typedef {import('./run.js').Run} Run
 * @typedef {import('./codes.js').Codes} Codes
 * @typedef {import('./presence.js').Presence} Presence
 *
 * @typedef {object} Problem
 * @property {boolean} second  Whether the problem concerns the second run.
 * @property {boolean} gone  Whether the run is no longer on the server.
 * @property {string} sentence
 *
 * @typedef {object} PairData  What was recorded at one hook point; null if nothing was or a request failed.
 * @property {Codes | null} codes
 * @property {Presence | null} presence
 * @property {Codes | null} comparedCodes
 * @property {Presence | null} comparedPresence
 * @property {Problem[]} problems
 */
import {ServerError, openRun} from './run.js'

/** @param {Fetch} fetch */
export function createPair(fetch) {
  /** @type {Run | null} */
  let first = null
  /** @type {Run | null} */
  let second = null
  let latestOpen = 0

  return {
    get first() {
      return first
    },
    get second() {
      return second
    },

    close() {
      latestOpen++
      first = second = null
    },

    /**
     * Open both runs by their keys; "" means no second run.
     * Returns the problems, or null if `open` was called again in the meantime.
     * @param {string} key
     * @param {string} comparedKey
     * @returns {Promise<Problem[] | null>}
     */
    async open(key, comparedKey) {
      const thisOpen = ++latestOpen
      const [firstResult, secondResult] = await Promise.allSettled([
        openRun(key, fetch),
        comparedKey ? openRun(comparedKey, fetch) : null,
      ])
      if (thisOpen !== latestOpen) return null
      first = valueOf(firstResult)
      second = first && valueOf(secondResult)
      return problemsOf([firstResult], [secondResult])
    },

    /**
     * Return which image of the second run to compare with image `item`: 0 if that run has no image `item`.
     * @param {string} name  Name of the hook point.
     * @param {number} item
     */
    comparedItem: (name, item) => (item < (second?.hookPoint(name)?.items ?? 0) ? item : 0),

    /**
     * Fetch what was recorded at a hook point. Returns null if other runs were opened in the meantime.
     * @param {string} name
     * @param {string} role
     * @param {number} item
     * @returns {Promise<PairData | null>}
     */
    async fetchData(name, role, item) {
      const run = first
      const other = second
      const hookPoint = run?.hookPoint(name)
      const otherHookPoint = other?.hookPoint(name)
      if (!run || !hookPoint) return null
      // in another SAE, the same number is another feature
      const comparable =
        otherHookPoint?.roles.includes(role) && otherHookPoint.dictionary === hookPoint.dictionary
      const compared = comparable ? other : null
      const number = this.comparedItem(name, item)
      const [codes, presence, comparedCodes, comparedPresence] = await Promise.allSettled([
        run.codes(name, role, item),
        hookPoint.missing ? null : run.presence(name, role, item),
        compared?.codes(name, role, number) ?? null,
        otherHookPoint?.missing ? null : (compared?.presence(name, role, number) ?? null),
      ])
      if (run !== first || other !== second) return null
      const problems = problemsOf([codes, presence], [comparedCodes, comparedPresence])
      if (problems.some(problem => problem.gone && problem.second)) second = null
      if (problems.some(problem => problem.gone && !problem.second)) this.close()
      return {
        codes: valueOf(codes),
        presence: valueOf(presence),
        comparedCodes: valueOf(comparedCodes),
        comparedPresence: valueOf(comparedPresence),
        problems,
      }
    },
  }
}

/**
 * @template T
 * @param {PromiseSettledResult<T>} result
 */
const valueOf = result => (result.status === 'fulfilled' ? result.value : null)

/**
 * Return the worst problem of each run that has problems.
 * @param {PromiseSettledResult<unknown>[]} ofFirst
 * @param {PromiseSettledResult<unknown>[]} ofSecond
 * @returns {Problem[]}
 */
function problemsOf(ofFirst, ofSecond) {
  return [ofFirst, ofSecond].flatMap((results, number) => {
    const problems = results.flatMap(result =>
      result.status === 'rejected' ? [problemOf(result.reason, number === 1)] : [],
    )
    return problems.sort((a, b) => Number(b.gone) - Number(a.gone)).slice(0, 1)
  })
}

/**
 * @param {unknown} reason
 * @param {boolean} second
 * @returns {Problem}
 */
const problemOf = (reason, second) => ({
  second,
  gone: reason instanceof ServerError && reason.status === 404,
  sentence: reason instanceof Error ? reason.message : String(reason),
})
