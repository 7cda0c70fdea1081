package dev.gatun.checkpoint;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.MissingNode;
import dev.gatun.GatunException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;

/**
 * JSON as checkpoints carry it: strict UTF-8, no duplicate keys, nothing after the document, and
 * limits on size, depth, names and numbers so that a small file cannot cost much time or memory.
 */
final class Json {
  /** The largest safetensors header, in bytes: the format's own limit. */
  static final int LARGEST_HEADER = 100_000_000;

  /** The largest JSON file beside a checkpoint, in bytes. */
  private static final long LARGEST_SIDECAR = 64_000_000;

  private static final JsonFactory FACTORY =
      JsonFactory.builder()
          .streamReadConstraints(
              StreamReadConstraints.builder()
                  .maxNestingDepth(100)
                  .maxNumberLength(400)
                  .maxNameLength(1_000_000)
                  .maxStringLength(LARGEST_HEADER)
                  .maxDocumentLength(LARGEST_HEADER)
                  .build())
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .build();

  /** Reads and writes trees under the limits above. */
  static final ObjectMapper MAPPER =
      new ObjectMapper(FACTORY).enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

  private Json() {}

  /** A parser over bytes that must be UTF-8. */
  static JsonParser parser(byte[] utf8) throws IOException {
    return FACTORY.createParser(text(utf8));
  }

  /** A tree from bytes that must be UTF-8. */
  static JsonNode tree(byte[] utf8) throws IOException {
    return MAPPER.readTree(text(utf8));
  }

  /** A tree from text. */
  static JsonNode tree(String text) throws JsonProcessingException {
    return MAPPER.readTree(text);
  }

  /** A JSON file; a missing node when there is none. */
  static JsonNode file(Path path) {
    try {
      long size = Files.size(path);
      if (size > LARGEST_SIDECAR) {
        throw Problem.file(path, size + " bytes of JSON", "at most " + LARGEST_SIDECAR);
      }
      return tree(Files.readAllBytes(path));
    } catch (NoSuchFileException e) {
      return MissingNode.getInstance();
    } catch (IOException e) {
      throw new GatunException(path + ": found " + reason(e) + ", expected a JSON document", e);
    }
  }

  /** Why a document was refused, on one line and without Jackson's source excerpt. */
  static String reason(IOException e) {
    if (e instanceof JsonProcessingException json) {
      StringBuilder line = new StringBuilder("bad JSON (");
      line.append(oneLine(json.getOriginalMessage()));
      if (json.getLocation() != null) {
        line.append(" at character ").append(json.getLocation().getCharOffset());
      }
      return line.append(')').toString();
    }
    if (e instanceof CharacterCodingException) {
      return "bytes that are not UTF-8";
    }
    return oneLine(e.getClass().getSimpleName() + " (" + e.getMessage() + ")");
  }

  private static String oneLine(String message) {
    String line = message.replaceAll("\\p{Cntrl}+", " ");
    return line.length() > 240 ? line.substring(0, 240) + "…" : line;
  }

  private static String text(byte[] utf8) throws CharacterCodingException {
    return StandardCharsets.UTF_8
        .newDecoder()
        .onMalformedInput(CodingErrorAction.REPORT)
        .onUnmappableCharacter(CodingErrorAction.REPORT)
        .decode(ByteBuffer.wrap(utf8))
        .toString();
  }
}
