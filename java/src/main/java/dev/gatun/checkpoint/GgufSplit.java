package dev.gatun.checkpoint;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A GGUF checkpoint in several files: {@code model-00001-of-00003.gguf} …, each with {@code
 * split.no}, {@code split.count} and {@code split.tensors.count} in its metadata.
 */
final class GgufSplit {
  private static final Pattern NAME = Pattern.compile("(.*)-(\\d{5})-of-(\\d{5})\\.gguf");
  private static final String COUNT = "split.count";
  private static final String NUMBER = "split.no";
  private static final String TENSORS = "split.tensors.count";

  private GgufSplit() {}

  /** Whether this metadata is about the split. */
  static boolean isKey(String key) {
    return key.equals(COUNT) || key.equals(NUMBER) || key.equals(TENSORS);
  }

  /** Whether a file's name is that of the second or a later part. */
  static boolean isLaterPart(Path path) {
    Matcher name = NAME.matcher(path.getFileName().toString());
    return name.matches() && Integer.parseInt(name.group(2)) > 1;
  }

  /** The files of which this is one, in order; itself alone when it is not split. */
  static List<Path> parts(GgufFile file) {
    long count = whole(file, COUNT).orElse(1);
    if (count <= 1) {
      return List.of(file.path());
    }
    Matcher name = NAME.matcher(file.path().getFileName().toString());
    if (!name.matches()
        || Integer.parseInt(name.group(3)) != count
        || Integer.parseInt(name.group(2)) > count
        || Integer.parseInt(name.group(2)) < 1) {
      throw Problem.file(
          file.path(),
          COUNT + " " + count + " and this file name",
          String.format("a name that ends in -00001-of-%05d.gguf … -%05d-of-", count, count)
              + String.format("%05d.gguf", count));
    }
    List<Path> parts = new ArrayList<>();
    for (int i = 1; i <= count; i++) {
      parts.add(
          file.path()
              .resolveSibling(
                  String.format("%s-%05d-of-%05d%s", name.group(1), i, count, GgufFile.SUFFIX)));
    }
    return parts;
  }

  /** Checks that opened files are the parts of one checkpoint, whole and in order. */
  static void check(List<TensorFile> files) {
    if (files.size() == 1) {
      return;
    }
    long tensors = files.stream().mapToLong(file -> file.tensors().size()).sum();
    for (int i = 0; i < files.size(); i++) {
      if (!(files.get(i) instanceof GgufFile part)) {
        throw Problem.file(files.get(i).path(), "no GGUF file", "a part of one");
      }
      expect(part, NUMBER, i);
      expect(part, COUNT, files.size());
      if (part.values().containsKey(TENSORS)) {
        expect(part, TENSORS, tensors);
      }
    }
  }

  private static void expect(GgufFile file, String key, long expected) {
    long found = whole(file, key).orElse(-1);
    if (found != expected) {
      throw Problem.file(file.path(), key + " " + found, key + " " + expected);
    }
  }

  private static OptionalLong whole(GgufFile file, String key) {
    GgufValue value = file.values().get(key);
    return value == null ? OptionalLong.empty() : value.whole();
  }
}
