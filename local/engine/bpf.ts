/**
 * Decisions of a system call filter, and the instructions that they compile to (linux/filter.h, linux/seccomp.h). A decision
 * loads the values that it tests, and each of its paths ends with a return instruction.
 */

const LOAD = 0x20;
const JUMP = 0x05;
const JUMP_EQUAL = 0x15;
const JUMP_GREATER_OR_EQUAL = 0x35;
const JUMP_ANY_BIT = 0x45;
const RETURN = 0x06;
const ALLOW = 0x7fff0000;
const ERRNO = 0x00050000;

/** code, jump if true, jump if false, constant */
type Instruction = [number, number, number, number];
export type Decision = Instruction[];

/** Offsets in struct seccomp_data. */
export const NUMBER = 0;
export const ARCHITECTURE = 4;
export const argument = (index: number) => 16 + 8 * index;
/** The offset of the upper half of a 64-bit argument, such as an address. Both supported architectures are little-endian. */
const upperHalf = (offset: number) => offset + 4;

export const allow: Decision = [[RETURN, 0, 0, ALLOW]];

export function refuse(error: number): Decision {
  return [[RETURN, 0, 0, ERRNO | error]];
}

/** The call succeeds without an effect. */
export const ignoreCall = refuse(0);

/** The longest conditional jump, in instructions. */
const MAX_CONDITIONAL_JUMP = 255;

function branch(jump: number, constant: number, yes: Decision, no: Decision): Decision {
  if (yes.length <= MAX_CONDITIONAL_JUMP) return [[jump, 0, yes.length, constant], ...yes, ...no];
  return [[jump, 1, 0, constant], [JUMP, 0, 0, yes.length], ...yes, ...no];
}

export function ifEqual(offset: number, value: number, yes: Decision, no: Decision): Decision {
  return [[LOAD, 0, 0, offset], ...branch(JUMP_EQUAL, value, yes, no)];
}

export function ifAtLeast(offset: number, value: number, yes: Decision, no: Decision): Decision {
  return [[LOAD, 0, 0, offset], ...branch(JUMP_GREATER_OR_EQUAL, value, yes, no)];
}

export function ifAnyBit(offset: number, bits: number, yes: Decision, no: Decision): Decision {
  return [[LOAD, 0, 0, offset], ...branch(JUMP_ANY_BIT, bits, yes, no)];
}

export function ifNull(offset: number, yes: Decision, no: Decision): Decision {
  return ifEqual(offset, 0, ifEqual(upperHalf(offset), 0, yes, no), no);
}

const MAX_VALUE = 0xffffffff;

/** Finds the decision for a value by binary search. */
export function decideByValue(
  offset: number,
  decisions: Iterable<readonly [number, Decision]>,
  otherwise: Decision,
): Decision {
  const ranges: Range[] = [{ from: 0, decision: otherwise }];
  for (const [value, decision] of [...decisions].toSorted(([a], [b]) => a - b)) {
    if (ranges.at(-1)?.from === value) ranges.pop();
    if (ranges.at(-1)?.decision !== decision) ranges.push({ from: value, decision });
    if (value < MAX_VALUE) ranges.push({ from: value + 1, decision: otherwise });
  }
  return [[LOAD, 0, 0, offset], ...search(ranges)];
}

export function onlyValues(offset: number, values: number[], error: number): Decision {
  return decideByValue(
    offset,
    values.map((value) => [value, allow]),
    refuse(error),
  );
}

/** The values from `from` up to the next range. */
interface Range {
  from: number;
  decision: Decision;
}

function search(ranges: Range[]): Decision {
  const half = ranges.length >> 1;
  const middle = ranges[half];
  if (middle === undefined) return [];
  if (half === 0) return middle.decision;
  return branch(
    JUMP_GREATER_OR_EQUAL,
    middle.from,
    search(ranges.slice(half)),
    search(ranges.slice(0, half)),
  );
}

export function assemble(program: Decision): Buffer {
  const bytes = Buffer.alloc(program.length * 8);
  program.forEach(([code, whenTrue, whenFalse, constant], index) => {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(whenTrue, index * 8 + 2);
    bytes.writeUInt8(whenFalse, index * 8 + 3);
    bytes.writeUInt32LE(constant >>> 0, index * 8 + 4);
  });
  return bytes;
}
