import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.Durations;
import google.rpc.Details.BadRequest;
import google.rpc.Details.ErrorInfo;
import google.rpc.Details.RetryInfo;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import otp.v1.OtpServiceGrpc;
import otp.v1.OtpServiceGrpc.OtpServiceBlockingStub;
import otp.v1.Otp.CancelOtpRequest;
import otp.v1.Otp.Channel;
import otp.v1.Otp.SendOtpRequest;
import otp.v1.Otp.VerifyOtpRequest;
import otp.v1.Otp.VerifyOutcome;

/**
 * A login by otpd, with the generated client of Java. The details of errors are generated as well,
 * because Debian's proto-google-common-protos has no ErrorInfo; newer ones have it in
 * com.google.rpc.
 */
public final class Login {
  private static final int MAX_ATTEMPTS = 5;
  private static final long MAX_WAIT_MILLIS = 2_000;

  /** An error of otpd, taken apart. */
  static final class Failure {
    String reason = "";
    String field = "";
    long waitMillis;

    Failure(StatusRuntimeException error) throws InvalidProtocolBufferException {
      com.google.rpc.Status status = StatusProto.fromThrowable(error);
      for (Any detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          reason = detail.unpack(ErrorInfo.class).getReason();
        } else if (detail.is(BadRequest.class)) {
          field = detail.unpack(BadRequest.class).getFieldViolations(0).getField();
        } else if (detail.is(RetryInfo.class)) {
          waitMillis = Durations.toMillis(detail.unpack(RetryInfo.class).getRetryDelay());
        }
      }
    }
  }

  /**
   * Makes a call, and repeats it after UNAVAILABLE alone, with the same message and so the same
   * request id. A retry policy of gRPC would do the same, but that of Java (1.41) also waits for
   * grpc-retry-pushback-ms after every other status, so that a person waits for the deadline in
   * place of the reason.
   */
  private static <R> R call(OtpServiceBlockingStub stub, Function<OtpServiceBlockingStub, R> method)
      throws Exception {
    OtpServiceBlockingStub timed = stub.withDeadlineAfter(5, TimeUnit.SECONDS);
    for (int attempt = 1; ; attempt++) {
      try {
        return method.apply(timed);
      } catch (StatusRuntimeException error) {
        if (error.getStatus().getCode() != Code.UNAVAILABLE || attempt == MAX_ATTEMPTS) {
          throw error;
        }
        Thread.sleep(Math.min(Math.max(new Failure(error).waitMillis, 200), MAX_WAIT_MILLIS));
      }
    }
  }

  /** An idempotency key: one for each action of a person, kept by its retries. */
  private static String requestId() {
    return UUID.randomUUID().toString();
  }

  private static void expect(String what, Object found, Object wanted) {
    if (!wanted.equals(found)) {
      throw new AssertionError(what + ": " + found + " instead of " + wanted);
    }
    System.out.println(what + ": " + found);
  }

  public static void main(String[] arguments) throws Exception {
    Metadata token = new Metadata();
    token.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER),
        "Bearer " + System.getenv("OTPD_TOKEN"));
    // Plain text for loopback; elsewhere without usePlaintext.
    ManagedChannel channel =
        ManagedChannelBuilder.forTarget(System.getenv("OTPD_ADDRESS"))
            .usePlaintext()
            .defaultLoadBalancingPolicy("round_robin")
            .disableRetry()
            .build();
    OtpServiceBlockingStub stub =
        OtpServiceGrpc.newBlockingStub(channel)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(token));
    try {
      login(stub);
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private static void login(OtpServiceBlockingStub stub) throws Exception {
    String recipient = System.getenv("RECIPIENT");
    SendOtpRequest send =
        SendOtpRequest.newBuilder().setRecipient(recipient).setRequestId(requestId()).build();
    var sent = call(stub, it -> it.sendOtp(send));
    expect("channel", sent.getChannel(), Channel.CHANNEL_SMS);

    VerifyOtpRequest mistyped =
        VerifyOtpRequest.newBuilder()
            .setRecipient(sent.getRecipient())
            .setCode("000000")
            .setRequestId(requestId())
            .build();
    var wrong = call(stub, it -> it.verifyOtp(mistyped));
    expect("wrong code", wrong.getOutcome(), VerifyOutcome.VERIFY_OUTCOME_WRONG_CODE);
    expect("verified", wrong.getVerified(), false);

    Failure failure = refused(stub, recipient);
    expect("second send", failure.reason, "RESEND_TOO_SOON");
    expect("has a wait", failure.waitMillis > 0, true);

    VerifyOtpRequest verify =
        mistyped.toBuilder()
            .setCode(System.getenv("CODE"))
            .setChallengeId(sent.getChallengeId())
            .setRequestId(requestId())
            .build();
    var right = call(stub, it -> it.verifyOtp(verify));
    expect("verified", right.getVerified(), true);

    failure = refused(stub, "nobody");
    expect("invalid recipient", failure.reason, "RECIPIENT_INVALID");
    expect("field", failure.field, "recipient");

    CancelOtpRequest cancel =
        CancelOtpRequest.newBuilder().setRecipient(recipient).setRequestId(requestId()).build();
    var cancelled = call(stub, it -> it.cancelOtp(cancel));
    expect("cancelled", cancelled.getCancelled(), false);
  }

  /** The failure of a send that must fail. */
  private static Failure refused(OtpServiceBlockingStub stub, String recipient) throws Exception {
    SendOtpRequest send =
        SendOtpRequest.newBuilder().setRecipient(recipient).setRequestId(requestId()).build();
    try {
      call(stub, it -> it.sendOtp(send));
    } catch (StatusRuntimeException error) {
      return new Failure(error);
    }
    throw new AssertionError("it was sent");
  }

  private Login() {}
}
