package rsyncx
import ("testing";"os";"time";"fmt";"runtime/pprof")
func TestZZProf(t *testing.T){
 to:=os.Getenv("STG_TO"); if to=="" {return}
 if p:=os.Getenv("STG_PROF"); p!="" { f,_:=os.Create(p); pprof.StartCPUProfile(f); defer pprof.StopCPUProfile() }
 for i:=0;i<5;i++ {
  d:=fmt.Sprintf("%s/%d",to,i); os.RemoveAll(d); os.MkdirAll(d,0o755)
  src,_:=Local(os.Getenv("STG_FROM")); dst,_:=OpenRoot(d)
  o:=Archive(); o.NoSync=true
  a:=time.Now()
  s,err:=Stage(t.Context(),src,dst,o); if err!=nil{t.Fatal(err)}
  b:=time.Now()
  if err:=s.Publish(t.Context());err!=nil{t.Fatal(err)}
  c:=time.Now()
  fmt.Println("stage",b.Sub(a),"publish",c.Sub(b),s.Stats().Transferred)
  os.RemoveAll(d)
 }
}
