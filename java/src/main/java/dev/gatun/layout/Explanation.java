package dev.gatun.layout;

import dev.gatun.Compute;
import dev.gatun.kernel.Operation;
import java.util.List;
import java.util.Optional;

/**
 * Which entry point runs an operation on a weight and a device, and why every other candidate does
 * not.
 *
 * @param operation what is asked for
 * @param layout of the weight
 * @param m rows of x; 0 where the operation has none
 * @param compute what the multiply is done in; empty where the operation has none
 * @param device the device, in words
 * @param candidates in the order in which they are asked
 * @param fallback whether no candidate runs and the weight is dequantized for the high-precision
 *     operation instead
 */
public record Explanation(
    Operation operation,
    String layout,
    long m,
    Optional<Compute> compute,
    String device,
    List<Candidate> candidates,
    boolean fallback) {

  /**
   * One entry point that was asked.
   *
   * @param kernel the kernel that it picks, when it runs
   * @param ruledOut why it does not run; empty when it does
   * @param how how that kernel does it and why so, or on a GPU that is not there would do it; empty
   *     where there is nothing to say
   */
  public record Candidate(
      String backend,
      String entryPoint,
      Optional<String> kernel,
      Optional<String> ruledOut,
      Optional<String> how) {}

  /** Copies the list. */
  public Explanation {
    candidates = List.copyOf(candidates);
  }

  /** The candidate that runs. */
  public Optional<Candidate> runs() {
    return candidates.stream().filter(c -> c.ruledOut().isEmpty()).findFirst();
  }

  /** The kernel that runs. */
  public Optional<String> kernel() {
    return runs().flatMap(Candidate::kernel);
  }

  /** A line for every candidate: {@code native gatun_linear: runs linear_f32_nf4__avx512}. */
  public List<String> lines() {
    return candidates.stream()
        .map(
            c ->
                c.backend()
                    + " "
                    + c.entryPoint()
                    + ": "
                    + c.ruledOut().orElseGet(() -> "runs " + c.kernel().orElse(c.entryPoint()))
                    + c.how().map(how -> " (" + how + ")").orElse(""))
        .toList();
  }
}
