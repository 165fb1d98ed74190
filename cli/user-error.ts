/** An error that the user can correct. Printed without a stack; the exit status is 1. */
export class UserError extends Error {
  override readonly name = "UserError";
}
