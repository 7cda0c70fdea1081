/**
 * The command line: one small picocli class a command. {@link dev.gatun.cli.Gatun} is the main
 * class; other modules add commands through {@link dev.gatun.cli.Command}.
 */
@NullMarked
package dev.gatun.cli;

import org.jspecify.annotations.NullMarked;
