import { CodedError } from '@qwen-supervisor/protocol/errors';

/**
 * Half precision, a driver or damaged weights give values that are not numbers; cast to bytes they would be a black
 * picture. `what` names the place. @throws CodedError VALUES_NOT_FINITE
 */
export function requireFinite(values: Float32Array, what: string): void {
  // What is not finite makes a sum that is not, whatever comes after it.
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i] as number) * 0;
  if (sum !== 0) throw new CodedError('VALUES_NOT_FINITE', `${what} has values that are not finite`);
}
