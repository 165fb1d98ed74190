/** An error that the user can correct. Its message is printed without a stack, and the exit status is 1. */
export class UserError extends Error {
  override readonly name = "UserError";
}
