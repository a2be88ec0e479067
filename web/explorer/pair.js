/**
 * The run that is looked into, and the one it is compared with. Every question is asked on its own: what fails of
 * the second leaves the first as it is, and an answer that comes late never replaces a newer one.
 *
 * @typedef {import('./run.js').Fetch} Fetch
 * @typedef {import('./run.js').Run} Run
 * @typedef {{second: boolean, gone: boolean, sentence: string}} Problem  gone: the server does not have that run any more.
 *
 * @typedef {object} Seen  What is known of one place; null where there is nothing, or it could not be had.
 * @property {import('./codes.js').Codes | null} codes
 * @property {import('./presence.js').Presence | null} presence
 * @property {import('./codes.js').Codes | null} beside
 * @property {import('./presence.js').Presence | null} besidePresence
 * @property {Problem[]} problems
 */
import {Refused, openRun} from './run.js'

/** @param {Fetch} fetch */
export function createPair(fetch) {
  /** @type {Run | null} */
  let first = null
  /** @type {Run | null} */
  let second = null
  let turn = 0

  return {
    get first() {
      return first
    },
    get second() {
      return second
    },

    close() {
      turn++
      first = second = null
    },

    /**
     * Open both runs by their keys; "" for no second one. What went wrong, or null where a later call came first.
     * @param {string} key
     * @param {string} compared
     * @returns {Promise<Problem[] | null>}
     */
    async open(key, compared) {
      const mine = ++turn
      const [one, two] = await Promise.allSettled([
        openRun(key, fetch),
        compared ? openRun(compared, fetch) : null,
      ])
      if (mine !== turn) return null
      first = valueOf(one)
      second = first && valueOf(two)
      return problemsOf([one], [two])
    },

    /**
     * Which picture of the second run belongs beside one of the first: the same, where it has as many.
     * @param {string} place
     * @param {number} item
     */
    itemBeside: (place, item) => (item < (second?.place(place)?.items ?? 0) ? item : 0),

    /**
     * Fetch what a place needs. null where other runs were opened meanwhile.
     * @param {string} name
     * @param {string} role
     * @param {number} item
     * @returns {Promise<Seen | null>}
     */
    async look(name, role, item) {
      const run = first,
        other = second,
        place = run?.place(name),
        its = other?.place(name)
      if (!run || !place) return null
      // of another SAE the same number would be another feature
      const beside = its?.roles.includes(role) && its.dictionary === place.dictionary ? other : null
      const number = this.itemBeside(name, item)
      const [codes, presence, besideCodes, besidePresence] = await Promise.allSettled([
        run.codes(name, role, item),
        place.missing ? null : run.presence(name, role, item),
        beside?.codes(name, role, number) ?? null,
        its?.missing ? null : (beside?.presence(name, role, number) ?? null),
      ])
      if (run !== first || other !== second) return null
      const problems = problemsOf([codes, presence], [besideCodes, besidePresence])
      if (problems.some(problem => problem.gone && problem.second)) second = null
      if (problems.some(problem => problem.gone && !problem.second)) this.close()
      return {
        codes: valueOf(codes),
        presence: valueOf(presence),
        beside: valueOf(besideCodes),
        besidePresence: valueOf(besidePresence),
        problems,
      }
    },
  }
}

/**
 * @template T
 * @param {PromiseSettledResult<T>} settled
 */
const valueOf = settled => (settled.status === 'fulfilled' ? settled.value : null)

/**
 * One problem for each run at most: the worst.
 * @param {PromiseSettledResult<unknown>[]} ofFirst
 * @param {PromiseSettledResult<unknown>[]} ofSecond
 * @returns {Problem[]}
 */
function problemsOf(ofFirst, ofSecond) {
  return [ofFirst, ofSecond].flatMap((settled, number) => {
    const problems = settled.flatMap(one =>
      one.status === 'rejected' ? [problemOf(one.reason, number === 1)] : [],
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
  gone: reason instanceof Refused && reason.status === 404,
  sentence: reason instanceof Error ? reason.message : String(reason),
})
