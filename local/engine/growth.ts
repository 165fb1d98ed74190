/** Measures how much the use of a resource has grown. */
import type { Limits } from "./limits.ts";
import { kernelMemory, kernelPages, usedMemory } from "./machine-memory.ts";

export interface Meter {
  /** Returns undefined if the use cannot be measured now, for example because the engine has no descriptors left. */
  measure: () => Promise<number | undefined>;
  /** Called when the resource is used up and no cause explains it, and while there are no sandboxes. */
  restart?: () => void;
}

/** Measures how much an amount has grown since it was lowest, or since the last growth that no sandbox explains. */
export class Growth implements Meter {
  readonly #read: () => number | undefined | Promise<number | undefined>;
  #baseline: number | undefined;

  /** @param read returns undefined if the amount cannot be measured now */
  constructor(read: () => number | undefined | Promise<number | undefined>) {
    this.#read = read;
  }

  async measure(): Promise<number | undefined> {
    const amount = await this.#read();
    if (amount === undefined) return undefined;
    this.#baseline = Math.min(this.#baseline ?? amount, amount);
    return amount - this.#baseline;
  }

  /** Other programs took the rest. With the old baseline, the guard would end the next sandbox that uses a part of the amount. */
  restart(): void {
    this.#baseline = undefined;
  }
}

/** Measures how much the kernel's memory has grown. */
export class KernelGrowth extends Growth {
  /** Whether data in sockets can be the reason. If mostly slabs have grown, for example because of many files, it is not. */
  isInPages = false;
  readonly #pages: Growth;
  readonly #least: number;

  /** @param least how much the pages must have grown */
  constructor(least: number, readMemory = kernelMemory, readPages = kernelPages) {
    super(readMemory);
    this.#pages = new Growth(readPages);
    this.#least = least;
  }

  override async measure(): Promise<number | undefined> {
    this.isInPages = ((await this.#pages.measure()) ?? 0) >= this.#least;
    return await super.measure();
  }

  override restart(): void {
    super.restart();
    // Otherwise, a program could fill as many pages as slabs again and again.
    if (this.isInPages) this.#pages.restart();
  }
}

/**
 * Measures how near the machine is to the end of its memory because of the kernel's: 1 when the machine's memory is used up, and the
 * kernel's has grown by its limit. Other programs alone cause the first without the second.
 */
export class Shortage extends Growth {
  growth = 0;
  readonly #limits: Limits;

  constructor(limits: Limits) {
    super(kernelMemory);
    this.#limits = limits;
  }

  override async measure(): Promise<number | undefined> {
    const growth = await super.measure();
    if (growth === undefined) return undefined;
    this.growth = growth;
    const { kernelGrowthOfMachine, usedMemoryOfMachine } = this.#limits;
    return Math.min(growth / kernelGrowthOfMachine, usedMemory() / usedMemoryOfMachine);
  }
}
