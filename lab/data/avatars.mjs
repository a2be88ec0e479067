// Draws DiceBear avatars. Reads from stdin one JSON object per line:
//   {"style": "pixel-art", "options": {...DiceBear options...}, "background": "aabbcc", "patches": [["old", "new"]]}
// (patches are plain text replacements in the SVG),
// and writes size*size*3 raw RGB bytes per object to stdout, in the same order.
// Usage: node avatars.mjs FOLDER SIZE     (FOLDER contains node_modules)
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, sizeText] = process.argv.slice(2);
const size = Number(sizeText);
const modules = join(folder, 'node_modules');
const { Resvg } = createRequire(join(modules, 'x.js'))('@resvg/resvg-js');
const load = (name) => import(pathToFileURL(join(modules, '@dicebear', name, 'lib', 'index.js')).href);
const { createAvatar } = await load('core');

const styles = new Map();
const resvgOptions = {
  fitTo: { mode: 'width', value: size },
  font: { loadSystemFonts: false },
};

// resvg treats every mask as a luminance mask, and some styles fill their masks with a dark colour, which would make
// beards and open mouths vanish. Masks are meant to be white.
const maskFill = /(<mask id="(?:beard|facialHair|hair|body|mouth)[^>]*>.*?<\/mask>)/gs;
const whiten = (mask) => mask.replace(/fill="#[0-9a-fA-F]{3,8}"/g, 'fill="#fff"');

async function draw(spec) {
  if (!styles.has(spec.style)) styles.set(spec.style, await load(spec.style));
  let svg = createAvatar(styles.get(spec.style), spec.options).toString().replace(maskFill, whiten);
  for (const [from, to] of spec.patches ?? []) svg = svg.replaceAll(from, to);
  const rgba = new Resvg(svg, { ...resvgOptions, background: `#${spec.background}` }).render().pixels;
  const rgb = Buffer.allocUnsafe(size * size * 3);
  for (let i = 0, j = 0; j < rgb.length; i += 4, j += 3) {
    rgb[j] = rgba[i];
    rgb[j + 1] = rgba[i + 1];
    rgb[j + 2] = rgba[i + 2];
  }
  return rgb;
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  if (!line) continue;
  const frame = await draw(JSON.parse(line));
  if (!process.stdout.write(frame)) await new Promise((resolve) => process.stdout.once('drain', resolve));
}
