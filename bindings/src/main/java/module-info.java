/**
 * The Java bindings of libgatun and its loader. The only module of Gatun that needs native access.
 */
module dev.gatun.bindings {
  requires static transitive org.jspecify;

  exports dev.gatun.bindings;
}
