"use strict";
/** The built-in objects as they were before the first cell. A cell may replace or delete their methods, which the prelude's files use. */
const {
  Array,
  Buffer,
  Error,
  Function,
  JSON,
  Map,
  Math,
  Number,
  Object,
  Promise,
  Reflect,
  RegExp,
  Set,
  String,
} = globalThis;
const { defineProperty, deleteProperty, getOwnPropertyDescriptor, getPrototypeOf, ownKeys, setPrototypeOf } =
  Reflect;
const CONSTRUCTORS = [Array, Buffer, Error, Function, Map, Number, Object, Promise, RegExp, Set, String];
const ITERABLES = [[], new Map(), new Set(), "", "".matchAll(/x/g)];
const OBJECTS = [
  ...CONSTRUCTORS,
  ...CONSTRUCTORS.map(({ prototype }) => prototype),
  ...ITERABLES.map((value) => getPrototypeOf(value[Symbol.iterator]())),
  getPrototypeOf(Uint8Array.prototype),
  JSON,
  Math,
  Reflect,
];

const METHODS = OBJECTS.flatMap((target) =>
  ownKeys(target).flatMap((key) => {
    const descriptor = getOwnPropertyDescriptor(target, key);
    return typeof descriptor.value === "function" ? { target, key, descriptor } : [];
  }),
);
// A method of this name would change the JSON of every document.
for (const { prototype } of [Object, Array])
  METHODS.push({ target: prototype, key: "toJSON", descriptor: undefined });

function put(target, key, descriptor) {
  // Otherwise a property such as Object.prototype.get would count as part of the descriptor.
  if (descriptor !== undefined) setPrototypeOf(descriptor, null);
  // Both return false for an object that the cell has frozen.
  return descriptor === undefined ? deleteProperty(target, key) : defineProperty(target, key, descriptor);
}

/**
 * Restores the original methods. Returns the function that puts the cell's own ones back. Both call no method that a cell can
 * replace, and use no iterator.
 */
function restoreBuiltins() {
  const replaced = [];
  for (let at = 0; at < METHODS.length; at++) {
    const { target, key, descriptor } = METHODS[at];
    const current = getOwnPropertyDescriptor(target, key);
    if (current?.value === descriptor?.value && (current === undefined) === (descriptor === undefined))
      continue;
    put(target, key, descriptor);
    replaced[replaced.length] = { target, key, descriptor: current };
  }
  return () => {
    for (let at = 0; at < replaced.length; at++)
      put(replaced[at].target, replaced[at].key, replaced[at].descriptor);
  };
}

/** Does synchronous work with the original methods. */
function withBuiltins(work) {
  const putBack = restoreBuiltins();
  try {
    return work();
  } finally {
    putBack();
  }
}

module.exports = { restoreBuiltins, withBuiltins };
