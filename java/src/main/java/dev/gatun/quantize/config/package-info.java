/**
 * The configurations that transformers, diffusers and ComfyUI write, with their keys and their
 * defaults: {@link dev.gatun.quantize.config.QuantizationConfig}. Each maps to and from JSON by
 * itself and through Jackson.
 */
@NullMarked
package dev.gatun.quantize.config;

import org.jspecify.annotations.NullMarked;
