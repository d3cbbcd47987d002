// A login by otpd, with the generated client of Go.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	otpv1 "example.com/login/otpv1"
)

// Retries after UNAVAILABLE alone; the same message is sent again, so with the same request id.
const serviceConfig = `{
  "loadBalancingConfig": [{ "round_robin": {} }],
  "methodConfig": [{
    "name": [{ "service": "otp.v1.OtpService" }],
    "retryPolicy": {
      "maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

// Failure is an error of otpd, taken apart.
type Failure struct {
	Reason string
	// Field that is invalid, if any.
	Field string
	// Wait before the next attempt, if that helps.
	Wait time.Duration
}

// read returns the details of an error.
func read(err error) Failure {
	var failure Failure
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failure.Reason = detail.Reason
		case *errdetails.BadRequest:
			failure.Field = detail.FieldViolations[0].Field
		case *errdetails.RetryInfo:
			failure.Wait = detail.RetryDelay.AsDuration()
		}
	}
	return failure
}

// requestID returns an idempotency key: one for each action of a person, kept by its retries.
func requestID() string {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		log.Fatal(err)
	}
	return hex.EncodeToString(id)
}

// call returns the context of one call: its deadline and the token.
func call() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("OTPD_TOKEN")), cancel
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func expect(what string, found, wanted interface{}) {
	if found != wanted {
		log.Fatalf("%s: %v instead of %v", what, found, wanted)
	}
	fmt.Printf("%s: %v\n", what, found)
}

func main() {
	// Plain text for loopback; elsewhere credentials.NewTLS.
	connection, err := grpc.Dial(os.Getenv("OTPD_ADDRESS"), grpc.WithInsecure(),
		grpc.WithDefaultServiceConfig(serviceConfig))
	check(err)
	defer connection.Close()
	otp := otpv1.NewOtpServiceClient(connection)
	recipient, code := os.Getenv("RECIPIENT"), os.Getenv("CODE")

	ctx, cancel := call()
	defer cancel()
	sent, err := otp.SendOtp(ctx, &otpv1.SendOtpRequest{Recipient: recipient, RequestId: requestID()})
	check(err)
	expect("channel", sent.Channel, otpv1.Channel_CHANNEL_SMS)

	wrong, err := otp.VerifyOtp(ctx, &otpv1.VerifyOtpRequest{
		Recipient: sent.Recipient, Code: "000000", RequestId: requestID()})
	check(err)
	expect("wrong code", wrong.Outcome, otpv1.VerifyOutcome_VERIFY_OUTCOME_WRONG_CODE)
	expect("verified", wrong.Verified, false)

	_, err = otp.SendOtp(ctx, &otpv1.SendOtpRequest{Recipient: recipient, RequestId: requestID()})
	failure := read(err)
	expect("second send", failure.Reason, "RESEND_TOO_SOON")
	expect("has a wait", failure.Wait > 0, true)

	right, err := otp.VerifyOtp(ctx, &otpv1.VerifyOtpRequest{
		Recipient: sent.Recipient, Code: code, ChallengeId: sent.ChallengeId, RequestId: requestID()})
	check(err)
	expect("verified", right.Verified, true)

	_, err = otp.SendOtp(ctx, &otpv1.SendOtpRequest{Recipient: "nobody", RequestId: requestID()})
	failure = read(err)
	expect("invalid recipient", failure.Reason, "RECIPIENT_INVALID")
	expect("field", failure.Field, "recipient")

	cancelled, err := otp.CancelOtp(ctx, &otpv1.CancelOtpRequest{Recipient: recipient, RequestId: requestID()})
	check(err)
	expect("cancelled", cancelled.Cancelled, false)
}
