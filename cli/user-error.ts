/**
 * An error that the user can correct. The program prints its message without a stack, and exits with status 1. A `CommandError` has
 * its own exit status.
 */
export class UserError extends Error {
  override readonly name = "UserError";
}
