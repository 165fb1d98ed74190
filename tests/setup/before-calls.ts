/** `target`, which awaits `work` before each call of a method. */
export function beforeCalls<T extends object>(
  target: T,
  work: (method: string, args: readonly unknown[]) => Promise<void> | void,
): T {
  return new Proxy(target, {
    get(object, name) {
      const member: unknown = Reflect.get(object, name);
      if (typeof member !== "function") return member;
      return async (...args: unknown[]) => {
        await work(String(name), args);
        return Reflect.apply(member, object, args);
      };
    },
  });
}
