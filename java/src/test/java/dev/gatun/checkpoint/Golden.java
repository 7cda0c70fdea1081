package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

/**
 * The files that the real libraries wrote: one archive a family among the test resources, unpacked
 * once per run. Bytes that are in another file already are not stored again: {@code X.pieces} has a
 * line for each piece of the file X, {@code LENGTH FAMILY/CASE/FILE OFFSET} for bytes of another
 * file, {@code LENGTH} alone for the next ones of {@code X.rest}.
 */
public final class Golden {
  private static final String PIECES = ".pieces";
  private static final String REST = ".rest";
  private static final Map<String, Path> UNPACKED = new HashMap<>();

  /**
   * A directory with families of cases to be tested instead of those among the resources: {@code
   * FAMILY/CASE/FILE}, with the original weights and inputs in {@code orig/orig}.
   */
  private static final String EVERYTHING = "gatun.golden";

  private Golden() {}

  /** Names of a family's cases, sorted; empty when there is no such family. */
  public static List<String> cases(String family) {
    try (Stream<Path> entries = Files.list(dir(family, "."))) {
      return entries
          .filter(path -> Files.exists(path.resolve("case.json")))
          .map(path -> path.getFileName().toString())
          .sorted()
          .toList();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The directory of a case: {@code bnb}, {@code nf4_bf16}. */
  public static Path dir(String family, String name) {
    synchronized (UNPACKED) {
      Path root = UNPACKED.get(family);
      if (root == null) {
        root = unpack(family);
        UNPACKED.put(family, root);
        assemble(root); // from pieces that may be of this family
      }
      return root.resolve(name);
    }
  }

  /** A file of a case. */
  public static Path file(String family, String name, String file) {
    return dir(family, name).resolve(file);
  }

  /** The case's {@code case.json}. */
  public static JsonNode description(String family, String name) {
    return Json.file(file(family, name, "case.json"));
  }

  private static Path unpack(String family) {
    String everything = System.getProperty(EVERYTHING);
    if (everything != null) {
      Path other = Path.of(everything);
      // A wrong directory would test the resources again and say nothing.
      if (!Files.isRegularFile(other.resolve("orig/orig/weights.safetensors"))) {
        throw new IllegalStateException(
            other + ": found no orig/orig/weights.safetensors, expected FAMILY/CASE/FILE");
      }
      if (Files.isDirectory(other.resolve(family))) {
        return other.resolve(family);
      }
    }
    try (InputStream in = Golden.class.getResourceAsStream("/golden/" + family + ".zip")) {
      if (in == null) {
        throw new IllegalStateException("no test resource golden/" + family + ".zip");
      }
      Path root = Files.createTempDirectory("gatun-golden-");
      Runtime.getRuntime().addShutdownHook(new Thread(() -> delete(root)));
      try (ZipInputStream zip = new ZipInputStream(in)) {
        for (ZipEntry entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
          Path file = root.resolve(entry.getName());
          Files.createDirectories(file.getParent());
          Files.copy(zip, file);
        }
      }
      return root;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Puts files together that share bytes with others. */
  private static void assemble(Path root) {
    try (Stream<Path> files = Files.walk(root)) {
      for (Path pieces : files.filter(f -> f.toString().endsWith(PIECES)).sorted().toList()) {
        String name = pieces.toString();
        String whole = name.substring(0, name.length() - PIECES.length());
        try (OutputStream out = Files.newOutputStream(Path.of(whole));
            InputStream rest = Files.newInputStream(Path.of(whole + REST))) {
          for (String line : Files.readAllLines(pieces)) {
            String[] piece = line.split(" ", -1);
            int length = Integer.parseInt(piece[0]);
            if (piece.length == 1) {
              out.write(rest.readNBytes(length));
            } else {
              String[] from = piece[1].split("/", 2);
              byte[] bytes = Files.readAllBytes(dir(from[0], from[1]));
              out.write(bytes, Integer.parseInt(piece[2]), length);
            }
          }
        }
        Files.delete(pieces);
        Files.delete(Path.of(whole + REST));
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static void delete(Path root) {
    try {
      Files.walkFileTree(
          root,
          new SimpleFileVisitor<>() {
            @Override
            public FileVisitResult visitFile(Path file, BasicFileAttributes attributes)
                throws IOException {
              Files.delete(file);
              return FileVisitResult.CONTINUE;
            }

            @Override
            public FileVisitResult postVisitDirectory(Path dir, java.io.IOException e)
                throws IOException {
              Files.delete(dir);
              return FileVisitResult.CONTINUE;
            }
          });
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
