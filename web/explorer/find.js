/** Searches for features and concepts by number, label or name. */

/**
 * @typedef {import('./store.js').Subject} Subject
 * @typedef {import('./run.js').HookPoint} HookPoint
 */

/**
 * Return the matches for a text: the feature with that number, then concepts, then features by label.
 * @param {string} text
 * @param {HookPoint} hookPoint
 * @param {import('./labels.js').Labels} labels
 * @param {number} count
 * @returns {Subject[]}
 */
export function findSubjects(text, hookPoint, labels, count) {
  const wanted = text.trim().replace(/^#/, '').toLowerCase()
  if (!wanted) return []
  /** @type {Subject[]} */
  const found = []
  if (/^\d+$/.test(wanted) && Number(wanted) < hookPoint.features) {
    found.push({kind: 'feature', feature: Number(wanted)})
  }
  for (const {name} of hookPoint.concepts) if (matches(name, wanted)) found.push({kind: 'concept', name})
  const features = new Set()
  for (const [feature, label] of labels.own) if (matches(label, wanted)) features.add(feature)
  for (const [label, members] of Object.entries(hookPoint.labels)) {
    if (matches(label, wanted)) members.forEach(feature => features.add(feature))
  }
  for (const feature of features) found.push({kind: 'feature', feature})
  return found.slice(0, count)
}

/**
 * Whether each word of the searched text begins some word of the name.
 * @param {string} name
 * @param {string} wanted
 */
function matches(name, wanted) {
  const words = name.toLowerCase().split(/\s+/)
  return wanted.split(/\s+/).every(part => words.some(word => word.startsWith(part)))
}
