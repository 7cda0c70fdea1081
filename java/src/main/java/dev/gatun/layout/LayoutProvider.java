package dev.gatun.layout;

/**
 * Adds layouts and entry points to the {@link LayoutRegistry}; found through {@link
 * java.util.ServiceLoader}. Ours are registered the same way.
 */
public interface LayoutProvider {
  /** Registers what this provider has. */
  void register(LayoutRegistry.Registrar registrar);
}
