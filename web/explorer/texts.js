/**
 * Translates the explorer's texts. The English text in the code is the key: translations are in
 * locales/<language>/main.json under revelio.explorer, and a text without a translation stays English.
 *
 * @typedef {(text: string, values?: Record<string, string | number>) => string} Translate
 *   values: the value of each {name} in the text.
 * @typedef {Record<string, string>} Texts  Translations; the keys are the English texts.
 */

/** @type {Translate} */
export const english = (text, values = {}) =>
  text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole))

/**
 * @param {() => Record<string, Texts>} languages
 * @param {() => string} locale  The interface's language, such as "zh" or "zh-TW".
 * @returns {Translate}
 */
export const createTranslate = (languages, locale) => (text, values) => {
  const code = locale()
  const known = languages()
  const texts = known[code] ?? known[code.split('-')[0] ?? '']
  return english(texts?.[text] ?? text, values)
}

/**
 * Return the explorer's part of the response of ComfyUI's /i18n; {} if the response is anything else.
 * @param {unknown} locales
 * @returns {Record<string, Texts>}
 */
export function explorerTexts(locales) {
  /** @type {Record<string, Texts>} */
  const found = {}
  for (const [language, messages] of Object.entries(locales ?? {})) {
    const texts = messages?.revelio?.explorer
    if (typeof texts === 'object' && texts !== null) found[language] = texts
  }
  return found
}
