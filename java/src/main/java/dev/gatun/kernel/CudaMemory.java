package dev.gatun.kernel;

import dev.gatun.GatunException;

/**
 * Bytes on a GPU. Only a {@link CudaStream} reads and writes them: the address is a number, which
 * Java cannot follow by mistake. Thread-safe.
 *
 * <p>Closing it waits for nothing and takes nothing away: the memory is given back once all that
 * the device's streams were given before is done. A graph that was captured with it keeps it.
 */
public final class CudaMemory implements AutoCloseable {
  /** No memory: address 0. */
  static final CudaMemory NONE = new CudaMemory();

  private final long address;
  private final long byteSize;
  private final UseCount uses;
  private final boolean owner;
  private final int device;

  private CudaMemory() {
    this(0, 0, new UseCount("memory", () -> {}), false, -1);
  }

  private CudaMemory(long address, long byteSize, UseCount uses, boolean owner, int device) {
    this.address = address;
    this.byteSize = byteSize;
    this.uses = uses;
    this.owner = owner;
    this.device = device;
  }

  /**
   * Fresh memory, aligned to 256 bytes.
   *
   * @throws dev.gatun.CudaOutOfMemoryException when the device has not as much
   */
  static CudaMemory allocate(CudaContext context, long byteSize) {
    if (byteSize < 0) {
      throw new GatunException("cuda: found " + byteSize + " bytes, expected at least 0");
    }
    long address = context.allocate(Math.max(1, byteSize));
    UseCount uses = new UseCount("device memory", () -> context.release(address));
    return new CudaMemory(address, byteSize, uses, true, context.device());
  }

  /** Bytes. */
  public long byteSize() {
    return byteSize;
  }

  /** The address on the device, for other libraries that work there; 0 when there is none. */
  public long address() {
    return address;
  }

  /** The index of the device that it lies on. */
  public int device() {
    return device;
  }

  /**
   * A part of this memory, which lives as long as the whole; closing the part does nothing.
   *
   * @throws IndexOutOfBoundsException when it is not within the whole
   */
  public CudaMemory slice(long offset, long bytes) {
    if (offset < 0 || bytes < 0 || offset > byteSize - bytes) {
      throw new IndexOutOfBoundsException(
          "cuda: found bytes "
              + offset
              + " to "
              + offset
              + " + "
              + bytes
              + ", expected within "
              + byteSize);
    }
    return new CudaMemory(address + offset, bytes, uses, false, device);
  }

  UseCount uses() {
    return uses;
  }

  boolean overlaps(CudaMemory other) {
    return address < other.address + other.byteSize && other.address < address + byteSize;
  }

  /** Gives the memory back, see above. A second call does nothing. */
  @Override
  public void close() {
    if (owner) {
      uses.close();
    }
  }

  @Override
  public String toString() {
    return byteSize + " bytes on device " + device;
  }
}
