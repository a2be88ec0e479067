/**
 * Converts the choice of concepts and features to steer to and from the nodes' text: "glasses:-4, 1203:-1.5".
 *
 * @typedef {{name: string, strength: number}} Chosen  name: a concept's name or a feature's number.
 */

/**
 * @param {string} text
 * @returns {Chosen[]}
 */
export function parseChoice(text) {
  return (text ?? '').split(/[,;\n]/).flatMap(part => {
    const found = /^\s*(.+?)\s*:\s*([+-]?[\d.]+)\s*$/.exec(part)
    const name = (found?.[1] ?? part).trim()
    const strength = found ? Number(found[2]) : 1
    return name && Number.isFinite(strength) ? [{name, strength}] : []
  })
}

/** @param {Chosen[]} chosen */
export const formatChoice = chosen =>
  chosen.map(({name, strength}) => `${name}:${Number(strength.toFixed(2))}`).join(', ')

/**
 * Return a copy of the choice in which one entry is changed, appended, or (strength null) removed.
 * @param {Chosen[]} chosen
 * @param {string} name
 * @param {number | null} strength
 * @returns {Chosen[]}
 */
export function withChosen(chosen, name, strength) {
  if (strength === null) return chosen.filter(entry => entry.name !== name)
  if (!chosen.some(entry => entry.name === name)) return [...chosen, {name, strength}]
  return chosen.map(entry => (entry.name === name ? {name, strength} : entry))
}
