/** The instructions of system call filters (linux/filter.h, linux/seccomp.h). */

export const LOAD = 0x20;
export const JUMP_EQUAL = 0x15;
export const JUMP_GREATER_OR_EQUAL = 0x35;
export const JUMP_ANY_BIT = 0x45;
export const AND = 0x54;
export const RETURN = 0x06;
export const ALLOW = 0x7fff0000;
export const ERRNO = 0x00050000;

/** code, jump if true, jump if false, constant */
export type Instruction = [number, number, number, number];

export const OFFSET_NUMBER = 0;
export const OFFSET_ARCH = 4;
export const OFFSET_FIRST_ARGUMENT = 16;
export const OFFSET_SECOND_ARGUMENT = 24;

export const offsetOfArgument = (index: number) => OFFSET_FIRST_ARGUMENT + 8 * index;

/** Instructions that apply if the loaded value is this one. */
export function block(value: number, instructions: Instruction[]): Instruction[] {
  return [[JUMP_EQUAL, 0, instructions.length, value], ...instructions];
}

export const allowed: Instruction = [RETURN, 0, 0, ALLOW];

export function refused(error: number): Instruction {
  return [RETURN, 0, 0, ERRNO | error];
}

export function assemble(program: Instruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8);
  program.forEach(([code, whenTrue, whenFalse, constant], index) => {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(whenTrue, index * 8 + 2);
    bytes.writeUInt8(whenFalse, index * 8 + 3);
    bytes.writeUInt32LE(constant >>> 0, index * 8 + 4);
  });
  return bytes;
}
