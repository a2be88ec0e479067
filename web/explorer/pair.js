/**
 * The run that is shown and the one it is compared with. Every request stands alone: a failure of the second
 * run leaves the first as it is, and a response that comes late never replaces a newer one.
 *
 * @typedef {import('./run.js').Fetch} Fetch
 * @typedef {import('./run.js').Run} Run
 * @typedef {import('./codes.js').Codes} Codes
 * @typedef {import('./presence.js').Presence} Presence
 *
 * @typedef {object} Problem
 * @property {boolean} second  Whether it concerns the second run.
 * @property {boolean} gone  Whether that run is no longer on the server.
 * @property {string} sentence
 *
 * @typedef {object} PairData  What was recorded at one hook point; null where there is nothing, or it failed.
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
     * Open both runs by their keys; "" for no second one.
     * Returns the problems, or null where a later call came first.
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
     * Which image of the second run belongs beside one of the first: the same number, where it has as many.
     * @param {string} name  Of the hook point.
     * @param {number} item
     */
    comparedItem: (name, item) => (item < (second?.hookPoint(name)?.items ?? 0) ? item : 0),

    /**
     * Fetch what was recorded at a hook point. null where other runs were opened in the meantime.
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
      // in another SAE the same number would be another feature
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
 * At most one problem for each run: the worst.
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
